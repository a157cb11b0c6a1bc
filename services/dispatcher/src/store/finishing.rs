//! How attempts ended, and what comes of it for their deliveries, for what stands behind them, and for their receivers.

use std::collections::BTreeSet;
use std::time::Duration;

use ::store::outbox;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::adding::SUPERSEDED;
use super::claiming::Claimer;
use super::{health, order};
use crate::breaker::{self, Health};
use crate::delivery::{Backoff, Next, Outcome, State};
use crate::events::{self, Over};

/// An attempt that is over.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The delivery.
    pub id: String,
    /// The attempt.
    pub number: u32,
    /// The receiver.
    pub receiver_id: Uuid,
    /// Its name.
    pub receiver: String,
    /// The group that was told.
    pub group_id: String,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// What comes of it.
    pub next: Next,
}

/// What came of writing attempts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Deliveries are over: the outbox has something now.
    pub is_over: bool,
    /// Receivers have something new to do.
    pub is_more: bool,
}

/// Writes down how attempts ended and what comes of it, in one transaction. A delivery changes only if no other process has
/// taken it over meanwhile; a success counts even then. No delivery may be among them twice.
///
/// # Errors
/// Postgres.
pub async fn finish(
    pool: &PgPool,
    claimer: &Claimer,
    finished: &[Finished],
    backoff: &Backoff,
    jitter: f64,
) -> sqlx::Result<Written> {
    let lines: BTreeSet<order::Line> =
        finished.iter().map(|finished| (finished.receiver.clone(), finished.group_id.clone())).collect();
    let mut transaction = pool.begin().await?;
    order::lock(&mut transaction, &lines).await?;
    note_attempts(&mut transaction, finished).await?;
    let mut over = end(&mut transaction, claimer, finished).await?;
    let delivered: Vec<&str> =
        over.iter().filter(|over| over.state == State::Delivered.as_str()).map(|over| over.id.as_str()).collect();
    if !delivered.is_empty() {
        let superseded = supersede(&mut transaction, &delivered).await?;
        over.extend(superseded);
    }
    let mut look_at = order::settle(&mut transaction, &lines).await?;
    over.retain(|over| over.state != State::Pending.as_str());
    outbox::put(&mut transaction, &events::messages(&over)).await?;
    // Last, since everything that is sent to these receivers passes by their rows.
    look_at.extend(note_health(&mut transaction, finished, backoff, jitter).await?);
    let is_more = !look_at.is_empty();
    health::look_again(&mut transaction, look_at).await?;
    transaction.commit().await?;
    Ok(Written { is_over: !over.is_empty(), is_more })
}

/// What the attempts say about their receivers; gives those that are to be looked at again.
async fn note_health(
    connection: &mut PgConnection,
    finished: &[Finished],
    backoff: &Backoff,
    jitter: f64,
) -> sqlx::Result<BTreeSet<Uuid>> {
    let judge = |finished: &Finished, before| breaker::health(&finished.outcome, before, backoff, jitter);
    let all = finished.iter().map(|finished| finished.receiver_id).collect();
    let ails = |finished: &&Finished| judge(finished, 0) != Health::Answers;
    let ailing = finished.iter().filter(ails).map(|finished| finished.receiver_id).collect();
    let failures = health::failures(connection, &all, &ailing).await?;
    for (receiver, before) in &failures {
        let own = finished.iter().filter(|finished| finished.receiver_id == *receiver);
        let after = own.fold(None, |after, finished| {
            let failures = match after {
                None => *before,
                Some(Health::Answers) => 0,
                Some(Health::Ails { failures, .. }) => failures,
            };
            Some(judge(finished, failures))
        });
        if let Some(after) = after {
            health::note(connection, *receiver, *before, after).await?;
        }
    }
    let again = finished.iter().filter(|finished| !matches!(finished.next, Next::Delivered));
    Ok(failures.into_keys().chain(again.map(|finished| finished.receiver_id)).collect())
}

async fn note_attempts(connection: &mut PgConnection, finished: &[Finished]) -> sqlx::Result<()> {
    sqlx::query(
        "update attempts set duration_millis = ended.took, http_status = ended.status, error = ended.error
         from unnest($1::text[], $2::integer[], $3::integer[], $4::integer[], $5::text[])
             ended (id, number, took, status, error)
         where attempts.delivery_id = ended.id and attempts.number = ended.number",
    )
    .bind(finished.iter().map(|finished| finished.id.as_str()).collect::<Vec<_>>())
    .bind(numbers(finished))
    .bind(finished.iter().map(|f| i32::try_from(f.took.as_millis()).unwrap_or(i32::MAX)).collect::<Vec<_>>())
    .bind(finished.iter().map(|finished| i32::from(finished.outcome.status())).collect::<Vec<_>>())
    .bind(finished.iter().map(|finished| finished.outcome.error()).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(|_| ())
}

fn numbers(finished: &[Finished]) -> Vec<i32> {
    finished.iter().map(|finished| i32::try_from(finished.number).unwrap_or(i32::MAX)).collect()
}

/// The state of a delivery after its attempt, why, and after how many seconds it is tried again.
fn after(finished: &Finished) -> (&'static str, String, Option<f64>) {
    match &finished.next {
        Next::Delivered => (State::Delivered.as_str(), String::new(), None),
        Next::Failed(reason) => (State::Failed.as_str(), reason.clone(), None),
        Next::Retry(delay) => (State::Pending.as_str(), finished.outcome.error(), Some(delay.as_secs_f64())),
    }
}

async fn end(connection: &mut PgConnection, claimer: &Claimer, finished: &[Finished]) -> sqlx::Result<Vec<Over>> {
    let after = || finished.iter().map(after);
    let ids: Vec<&str> = finished.iter().map(|finished| finished.id.as_str()).collect();
    // In the order in which who deletes a receiver locks what waits for it.
    sqlx::query("select from deliveries where id = any($1) order by id collate \"C\" for no key update")
        .bind(&ids)
        .execute(&mut *connection)
        .await?;
    let rows = sqlx::query(
        "update deliveries set state = ended.state, reason = ended.reason, claim = null, claimed_until = null,
             is_next = is_next and ended.state = 'pending',
             next_attempt_at = now() + ended.delay * interval '1 second',
             finished_at = case when ended.state = 'pending' then null else clock_timestamp() end
         from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::double precision[])
                 ended (id, number, state, reason, delay), notifications
         where deliveries.id = ended.id and deliveries.state = 'pending' and notifications.id = notification_id
           and (claim = $6 and attempts = ended.number or ended.state = 'delivered')
         returning deliveries.*, notifications.received_unix_nano, notifications.traceparent",
    )
    .bind(&ids)
    .bind(numbers(finished))
    .bind(after().map(|(state, _, _)| state).collect::<Vec<_>>())
    .bind(after().map(|(_, reason, _)| reason).collect::<Vec<_>>())
    .bind(after().map(|(_, _, delay)| delay).collect::<Vec<_>>())
    .bind(claimer.owner)
    .fetch_all(connection)
    .await?;
    rows.iter().map(events::read).collect()
}

/// Remembers what receivers have had of the groups of these deliveries, and ends what is older.
async fn supersede(connection: &mut PgConnection, delivered: &[&str]) -> sqlx::Result<Vec<Over>> {
    sqlx::query(
        "insert into heard (receiver, group_id, sequence)
         select receiver, group_id, max(sequence) from deliveries where id = any($1) group by receiver, group_id
         on conflict (receiver, group_id) do update
         set sequence = greatest(heard.sequence, excluded.sequence), heard_at = now()",
    )
    .bind(delivered)
    .execute(&mut *connection)
    .await?;
    let rows = sqlx::query(
        "update deliveries set state = 'superseded', reason = $2, is_next = false, claim = null, claimed_until = null,
             next_attempt_at = null, finished_at = clock_timestamp()
         from (select distinct receiver, group_id from deliveries where id = any($1)) line
         join heard using (receiver, group_id), notifications
         where deliveries.receiver = line.receiver and deliveries.group_id = line.group_id
           and deliveries.state = 'pending' and deliveries.sequence < heard.sequence
           and (claim is null or claimed_until < clock_timestamp()) and notifications.id = notification_id
         returning deliveries.*, notifications.received_unix_nano, notifications.traceparent",
    )
    .bind(delivered)
    .bind(SUPERSEDED)
    .fetch_all(connection)
    .await?;
    rows.iter().map(events::read).collect()
}
