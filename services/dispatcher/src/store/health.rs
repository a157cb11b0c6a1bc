//! How receivers do, and when there is something to be sent to them.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::count;
use crate::breaker::Health;

/// Notes when each of these has something to do: a delivery is due, or a claim of a process that may have died runs out.
///
/// # Errors
/// Postgres.
pub async fn look_again(connection: &mut PgConnection, receivers: BTreeSet<Uuid>) -> sqlx::Result<()> {
    if receivers.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = receivers.into_iter().collect();
    sqlx::query("select from receiver_state where receiver_id = any($1) order by receiver_id for no key update")
        .bind(&ids)
        .execute(&mut *connection)
        .await?;
    look_at_locked(connection, &ids).await
}

/// The same for receivers that are locked already.
///
/// # Errors
/// Postgres.
pub async fn look_at_locked(connection: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    // A hold without anything to send is nothing to do; a row that stays as it is is not written.
    sqlx::query(
        "update receiver_state set due_at = due.at
         from (select receiver_id as id, case when exists (
                   select from deliveries where deliveries.receiver_id = state.receiver_id and is_next)
               then greatest(held_until, least(
                   (select next_attempt_at from deliveries
                    where deliveries.receiver_id = state.receiver_id and is_next and claim is null
                    order by next_attempt_at limit 1),
                   (select min(claimed_until) from deliveries
                    where deliveries.receiver_id = state.receiver_id and claim is not null))) end as at
               from receiver_state state where receiver_id = any($1)) due
         where receiver_id = due.id and due_at is distinct from due.at",
    )
    .bind(ids)
    .execute(connection)
    .await
    .map(|_| ())
}

/// Failed attempts of each of these receivers since it last answered. Those that do not answer, or have not yet, are locked:
/// what is written of them depends on it. `ailing` are locked in any case. Who answers goes on answering: that is no news,
/// and a storm of pages need not stand in a line for saying so.
///
/// # Errors
/// Postgres.
pub async fn failures(
    connection: &mut PgConnection,
    receivers: &BTreeSet<Uuid>,
    ailing: &BTreeSet<Uuid>,
) -> sqlx::Result<BTreeMap<Uuid, u32>> {
    let rows = sqlx::query(
        "select receiver_id, failures from receiver_state
         where receiver_id = any($1) and (failures > 0 or not proven or receiver_id = any($2))
         order by receiver_id for no key update",
    )
    .bind(receivers.iter().copied().collect::<Vec<_>>())
    .bind(ailing.iter().copied().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("receiver_id")?, count(row, "failures")?))).collect()
}

/// Notes how a receiver does. One that answers again gets at once what had to wait.
///
/// # Errors
/// Postgres.
pub async fn note(connection: &mut PgConnection, receiver: Uuid, before: u32, now: Health) -> sqlx::Result<()> {
    let (failures, hold) = match now {
        Health::Answers => (0, None),
        Health::Ails { failures, hold } => (failures, hold),
    };
    sqlx::query(
        "update receiver_state set failures = $2, proven = $2 = 0, held_until = case
             when $2 = 0 then null
             else greatest(held_until, clock_timestamp() + $3 * interval '1 second') end
         where receiver_id = $1",
    )
    .bind(receiver)
    .bind(i32::try_from(failures).unwrap_or(i32::MAX))
    .bind(hold.map(|hold| hold.as_secs_f64()))
    .execute(&mut *connection)
    .await?;
    if before > 0 && failures == 0 {
        sqlx::query(
            "update deliveries set next_attempt_at = now() where id in (
                 select id from deliveries
                 where receiver_id = $1 and is_next and claim is null and next_attempt_at > now() and awaits is null
                 for no key update skip locked)",
        )
        .bind(receiver)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Puts right what was noted wrongly, should that ever be: a delivery must not wait for ever because nobody looks.
///
/// # Errors
/// Postgres.
pub async fn compare(pool: &PgPool) -> sqlx::Result<u64> {
    sqlx::query(
        "update receiver_state set due_at = greatest(held_until, due.at)
         from (select receiver_id, min(next_attempt_at) as at from deliveries
               where is_next and claim is null and receiver_id is not null group by receiver_id) due
         where receiver_state.receiver_id = due.receiver_id
           and (due_at is null or due_at > greatest(held_until, due.at) + interval '1 second')",
    )
    .execute(pool)
    .await
    .map(|done| done.rows_affected())
}
