//! Takes transitions in: one transaction for what lies ready, in the order of the stream.

use std::time::SystemTime;

use prost::Message as _;
use sqlx::{PgConnection, PgPool};

use crate::alert::{self, Change, Outcome, Verdict};
use crate::fence::Fence;
use crate::store::{self, Outgoing};
use crate::transition::Transition;
use crate::wire;

/// A transition and where it stood in the stream.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The transition.
    pub transition: Transition,
    /// Its place in the stream.
    pub sequence: u64,
    /// Whether one that belongs before it may still come; see [`alert::decide`].
    pub may_wait: bool,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// What became of one transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is applied, and the outbox has a notification if somebody is to be told.
    Applied(Outcome, bool),
    /// It was applied before.
    Repeated,
    /// It comes back later.
    AwaitsPredecessor,
    /// It must never be applied.
    Refused(String),
}

/// Applies `batch` in one transaction; on an error nothing of it is applied.
///
/// # Errors
/// Postgres.
pub async fn take(pool: &PgPool, batch: &[Incoming]) -> sqlx::Result<Vec<Taken>> {
    let mut transaction = pool.begin().await?;
    let mut taken = Vec::with_capacity(batch.len());
    for incoming in batch {
        taken.push(take_one(&mut transaction, incoming).await?);
    }
    transaction.commit().await?;
    Ok(taken)
}

async fn take_one(connection: &mut PgConnection, incoming: &Incoming) -> sqlx::Result<Taken> {
    let wire = &incoming.transition.wire;
    let id = alert::alert_id(&wire.tenant, &wire.rule_id, &wire.series);
    store::lock_alert(connection, &id).await?;
    if store::is_applied(connection, &wire.id).await? {
        return Ok(Taken::Repeated);
    }
    let fence = store::fence(connection, &wire.shard).await?;
    if let Some(fence) = fence.filter(|fence| !fence.admits(wire.epoch, incoming.sequence)) {
        return Ok(Taken::Refused(format!(
            "epoch {} of shard {} ended: epoch {} was heard before",
            wire.epoch, wire.shard, fence.epoch
        )));
    }
    let current = store::alert(connection, &id).await?;
    let change = match alert::decide(current.as_ref(), &incoming.transition, incoming.may_wait) {
        Verdict::Change(change) => *change,
        Verdict::AwaitPredecessor => return Ok(Taken::AwaitsPredecessor),
    };
    // Ids are unique by their hash, so a repeat has another alert only if somebody forged it.
    if !store::mark_applied(connection, &wire.id).await? {
        return Ok(Taken::Repeated);
    }
    if let Some(raised) = Fence::raised(fence, wire.epoch, incoming.sequence) {
        store::raise_fence(connection, &wire.shard, raised).await?;
    }
    let notified = write(connection, incoming, &id, &change).await?;
    Ok(Taken::Applied(change.outcome, notified))
}

async fn write(
    connection: &mut PgConnection,
    incoming: &Incoming,
    alert_id: &str,
    change: &Change,
) -> sqlx::Result<bool> {
    let notification = wire::notification(change, &incoming.transition.wire, now());
    let notification_id = notification.as_ref().map(|notification| notification.id.as_str());
    if let Some(alert) = &change.alert {
        store::save_alert(connection, alert, notification_id).await?;
    }
    store::record(connection, &incoming.transition, incoming.sequence, alert_id, change, notification_id).await?;
    let Some(notification) = &notification else { return Ok(false) };
    let outgoing = Outgoing {
        id: notification.id.clone(),
        alert_id: alert_id.to_owned(),
        alert_state: incoming.transition.state,
        receivers: notification.receivers.len(),
        payload: notification.encode_to_vec(),
        traceparent: incoming.traceparent.clone(),
    };
    store::enqueue(connection, &outgoing).await?;
    Ok(true)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
