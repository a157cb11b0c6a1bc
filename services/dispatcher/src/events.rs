//! What became of deliveries, told to whoever asked for them: put into the outbox when a delivery is over, and published
//! right after. The event's id is the delivery's, so telling twice is telling once.

use ::store::outbox::{Event, Failure, Message};
use bus::{Bus, Outgoing, PublishError, Subject};
use prost::Message as _;
use proto::alerts::DeliveryEvent;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use tracing::Instrument as _;

use crate::metrics::Metrics;

/// The only topic in the outbox.
const TOPIC: &str = "deliveries";

/// A delivery that is over, or has just begun.
#[derive(Debug, Clone)]
pub struct Over {
    /// The delivery's id.
    pub id: String,
    /// Its tenant.
    pub tenant: String,
    /// The notification.
    pub notification_id: String,
    /// The group.
    pub group_id: String,
    /// The receiver's name.
    pub receiver: String,
    /// How it ended.
    pub state: String,
    /// Attempts made.
    pub attempts: u32,
    /// Why it ended so.
    pub reason: String,
    /// When the gateway took the deciding sample in, Unix nanoseconds.
    pub received: u64,
    /// When it was over, Unix nanoseconds.
    pub finished: u64,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// Reads a row of `deliveries` with `received_unix_nano` and `traceparent` of its notification.
///
/// # Errors
/// A column is missing.
pub fn read(row: &PgRow) -> sqlx::Result<Over> {
    let received: Option<i64> = row.try_get("received_unix_nano")?;
    let finished: Option<OffsetDateTime> = row.try_get("finished_at")?;
    let attempts: i32 = row.try_get("attempts")?;
    let nanos = |time: OffsetDateTime| u64::try_from(time.unix_timestamp_nanos()).unwrap_or_default();
    Ok(Over {
        id: row.try_get("id")?,
        tenant: row.try_get("tenant")?,
        notification_id: row.try_get("notification_id")?,
        group_id: row.try_get("group_id")?,
        receiver: row.try_get("receiver")?,
        state: row.try_get("state")?,
        attempts: u32::try_from(attempts).unwrap_or_default(),
        reason: row.try_get("reason")?,
        received: received.and_then(|received| u64::try_from(received).ok()).unwrap_or_default(),
        finished: finished.map_or(0, nanos),
        traceparent: row.try_get("traceparent")?,
    })
}

/// The events for the outbox.
#[must_use]
pub fn messages(over: &[Over]) -> Vec<Message> {
    over.iter().map(message).collect()
}

fn message(over: &Over) -> Message {
    let event = DeliveryEvent {
        tenant: over.tenant.clone(),
        notification_id: over.notification_id.clone(),
        group_id: over.group_id.clone(),
        receiver: over.receiver.clone(),
        state: over.state.clone(),
        attempts: over.attempts,
        error: over.reason.clone(),
        received_unix_nano: over.received,
        finished_unix_nano: over.finished,
    };
    Message {
        id: over.id.clone(),
        topic: TOPIC.to_owned(),
        key: format!("{}/{}", over.receiver, over.group_id),
        tenant: over.tenant.clone(),
        payload: event.encode_to_vec(),
        traceparent: over.traceparent.clone(),
    }
}

/// Publishes one event.
///
/// # Errors
/// Whether it may pass later. A topic of a newer release is left to a replica of that.
pub async fn publish(bus: Bus, message: Message) -> Result<(), Failure> {
    if message.topic != TOPIC {
        return Err(Failure::Later(format!("the topic `{}` is not known to this version", message.topic)));
    }
    let span = tracing::info_span!("report", delivery = message.id);
    let mut outgoing = Outgoing::new(message.id, message.payload).header("Sl-Tenant", message.tenant);
    if let Some(traceparent) = &message.traceparent {
        telemetry::context::adopt(&span, traceparent);
        outgoing = outgoing.header(telemetry::context::HEADER, traceparent);
    }
    bus.publish(Subject::Deliveries, outgoing).instrument(span).await.map_err(|error| match error {
        PublishError::Refused(reason) => Failure::Never(reason),
        error => Failure::Later(error.to_string()),
    })
}

/// Counts what became of events.
pub fn count(metrics: &Metrics, event: &Event) {
    match event {
        Event::Published(..) => {}
        Event::Dead(_) => {
            metrics.outbox_dead.inc();
        }
        Event::Waiting(waiting) => {
            metrics.outbox_waiting.set(*waiting);
        }
    }
}
