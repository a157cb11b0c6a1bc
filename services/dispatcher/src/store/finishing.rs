//! How attempts ended, and what comes of it for their deliveries, for what stands behind them, and for their receivers.

use std::collections::BTreeSet;
use std::time::Duration;

use ::store::outbox;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::adding::SUPERSEDED;
use super::claiming::Claimer;
use super::{health, order};
use crate::breaker;
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

/// Writes down how an attempt ended and what comes of it. The delivery changes only if no other process has taken it over
/// meanwhile; a success counts even then. Says whether the outbox has something now.
///
/// # Errors
/// Postgres.
pub async fn finish(
    pool: &PgPool,
    claimer: &Claimer,
    finished: &Finished,
    backoff: &Backoff,
    jitter: f64,
) -> sqlx::Result<bool> {
    let lines = BTreeSet::from([(finished.receiver.clone(), finished.group_id.clone())]);
    let mut transaction = pool.begin().await?;
    order::lock(&mut transaction, &lines).await?;
    note_attempt(&mut transaction, finished).await?;
    let mut over = end(&mut transaction, claimer, finished).await?;
    if over.first().is_some_and(|over| over.state == State::Delivered.as_str()) {
        over.extend(supersede(&mut transaction, finished).await?);
    }
    let before = health::failures(&mut transaction, finished.receiver_id).await?;
    let now = breaker::health(&finished.outcome, before, backoff, jitter);
    health::note(&mut transaction, finished.receiver_id, before, now).await?;
    order::settle(&mut transaction, &lines).await?;
    health::look_again(&mut transaction, BTreeSet::from([finished.receiver_id])).await?;
    over.retain(|over| over.state != State::Pending.as_str());
    outbox::put(&mut transaction, &events::messages(&over)).await?;
    transaction.commit().await?;
    Ok(!over.is_empty())
}

async fn note_attempt(connection: &mut PgConnection, finished: &Finished) -> sqlx::Result<()> {
    sqlx::query(
        "update attempts set duration_millis = $3, http_status = $4, error = $5 where delivery_id = $1 and number = $2",
    )
    .bind(&finished.id)
    .bind(i32::try_from(finished.number).unwrap_or(i32::MAX))
    .bind(i32::try_from(finished.took.as_millis()).unwrap_or(i32::MAX))
    .bind(i32::from(finished.outcome.status()))
    .bind(finished.outcome.error())
    .execute(connection)
    .await
    .map(|_| ())
}

async fn end(connection: &mut PgConnection, claimer: &Claimer, finished: &Finished) -> sqlx::Result<Vec<Over>> {
    let (state, reason, delay) = match &finished.next {
        Next::Delivered => (State::Delivered, String::new(), None),
        Next::Failed(reason) => (State::Failed, reason.clone(), None),
        Next::Retry(delay) => (State::Pending, finished.outcome.error(), Some(delay.as_secs_f64())),
    };
    let rows = sqlx::query(
        "update deliveries set state = $3, reason = $4, claim = null, claimed_until = null,
             is_next = is_next and $3 = 'pending', next_attempt_at = now() + $5 * interval '1 second',
             finished_at = case when $3 = 'pending' then null else clock_timestamp() end
         from notifications
         where deliveries.id = $1 and deliveries.state = 'pending' and notifications.id = notification_id
           and (claim = $6 and attempts = $2 or $3 = 'delivered')
         returning deliveries.*, notifications.received_unix_nano, notifications.traceparent",
    )
    .bind(&finished.id)
    .bind(i32::try_from(finished.number).unwrap_or(i32::MAX))
    .bind(state.as_str())
    .bind(reason)
    .bind(delay)
    .bind(claimer.owner)
    .fetch_all(connection)
    .await?;
    rows.iter().map(events::read).collect()
}

/// Remembers what the receiver has had of the group, and ends what is older.
async fn supersede(connection: &mut PgConnection, finished: &Finished) -> sqlx::Result<Vec<Over>> {
    sqlx::query(
        "insert into heard (receiver, group_id, sequence)
         select receiver, group_id, sequence from deliveries where id = $1
         on conflict (receiver, group_id) do update
         set sequence = greatest(heard.sequence, excluded.sequence), heard_at = now()",
    )
    .bind(&finished.id)
    .execute(&mut *connection)
    .await?;
    let rows = sqlx::query(
        "update deliveries set state = 'superseded', reason = $3, is_next = false, claim = null, claimed_until = null,
             next_attempt_at = null, finished_at = clock_timestamp()
         from notifications, heard
         where deliveries.receiver = $1 and deliveries.group_id = $2 and deliveries.state = 'pending'
           and heard.receiver = $1 and heard.group_id = $2 and deliveries.sequence < heard.sequence
           and (claim is null or claimed_until < clock_timestamp()) and notifications.id = notification_id
         returning deliveries.*, notifications.received_unix_nano, notifications.traceparent",
    )
    .bind(&finished.receiver)
    .bind(&finished.group_id)
    .bind(SUPERSEDED)
    .fetch_all(connection)
    .await?;
    rows.iter().map(events::read).collect()
}
