//! Deliveries that nobody tries any more: their receiver is down, or there is none, and their time is over.

use std::collections::BTreeSet;
use std::time::Duration;

use ::store::outbox;
use sqlx::{PgPool, Row as _};

use super::{health, order};
use crate::events::{self, Over};

/// Deliveries given up in one transaction.
const AT_ONCE: i64 = 200;

/// When deliveries are given up.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// This long after they came.
    pub give_up: Duration,
    /// This long after they came, where there is no receiver.
    pub without_receiver: Duration,
}

/// Gives up what is overdue; gives how many, and whether there may be more.
///
/// # Errors
/// Postgres.
pub async fn give_up(pool: &PgPool, patience: Patience) -> sqlx::Result<(usize, bool)> {
    let mut transaction = pool.begin().await?;
    let rows = sqlx::query(
        "select id, receiver, group_id from (
             (select id, receiver, group_id from deliveries
              where state = 'pending' and created_at < now() - $1 * interval '1 second'
                and (claim is null or claimed_until < now()) order by created_at limit $3)
             union
             (select id, receiver, group_id from deliveries
              where state = 'pending' and receiver_id is null and created_at < now() - $2 * interval '1 second' limit $3)
         ) overdue",
    )
    .bind(patience.give_up.as_secs_f64())
    .bind(patience.without_receiver.as_secs_f64())
    .bind(AT_ONCE)
    .fetch_all(&mut *transaction)
    .await?;
    if rows.is_empty() {
        return Ok((0, false));
    }
    let ids = rows.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<Vec<String>>>()?;
    let lines = rows.iter().map(|row| Ok((row.try_get("receiver")?, row.try_get("group_id")?)));
    let lines: BTreeSet<order::Line> = lines.collect::<sqlx::Result<_>>()?;
    order::lock(&mut transaction, &lines).await?;
    let ended = sqlx::query(
        "update deliveries set state = 'failed', is_next = false, claim = null, claimed_until = null,
             next_attempt_at = null, finished_at = clock_timestamp(),
             reason = case when receiver_id is null then 'given up: there was no receiver of this name in time'
                           when attempts = 0 then 'given up: the receiver was down all the time'
                           else 'given up after ' || attempts || ' attempts: ' || reason end
         from notifications
         where deliveries.id = any($1) and deliveries.state = 'pending' and notifications.id = notification_id
           and (claim is null or claimed_until < clock_timestamp())
         returning deliveries.*, notifications.received_unix_nano, notifications.traceparent",
    )
    .bind(&ids)
    .fetch_all(&mut *transaction)
    .await?;
    let over = ended.iter().map(events::read).collect::<sqlx::Result<Vec<Over>>>()?;
    let receivers = order::settle(&mut transaction, &lines).await?;
    outbox::put(&mut transaction, &events::messages(&over)).await?;
    health::look_again(&mut transaction, receivers).await?;
    transaction.commit().await?;
    Ok((over.len(), i64::try_from(rows.len()).unwrap_or(i64::MAX) >= AT_ONCE))
}

/// How many deliveries are pending, as far as is counted.
///
/// # Errors
/// Postgres.
pub async fn pending(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from (select from deliveries where state = 'pending' limit 100000) pending")
        .fetch_one(pool)
        .await
}

/// How many receivers are down.
///
/// # Errors
/// Postgres.
pub async fn down(pool: &PgPool, after: u32) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from receiver_state where failures >= $1")
        .bind(i32::try_from(after).unwrap_or(i32::MAX))
        .fetch_one(pool)
        .await
}
