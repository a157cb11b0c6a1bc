//! Carries changes from the outbox to the broker.

use bus::{Bus, Outgoing, Subject};
use store::outbox::{Event, Failure, Message};

use crate::metrics::Metrics;

/// Publishes one change.
///
/// # Errors
/// Whether it may pass later.
pub async fn publish(bus: &Bus, message: Message) -> Result<(), Failure> {
    let outgoing = Outgoing::new(message.id, message.payload).header("Sl-Tenant", message.tenant);
    bus.publish(Subject::ResourcesChanged, outgoing).await.map_err(|error| {
        let reason = error.to_string();
        if error.is_retryable() { Failure::Later(reason) } else { Failure::Never(reason) }
    })
}

/// Counts what became of changes.
pub fn count(metrics: &Metrics, event: Event) {
    match event {
        Event::Published(..) => {
            metrics.outgoing.of(["published"]).inc();
        }
        Event::Dead(_) => {
            metrics.outgoing.of(["dead"]).inc();
        }
        Event::Waiting(count) => {
            metrics.waiting.set(count);
        }
    }
}
