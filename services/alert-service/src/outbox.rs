//! Publishes notifications and what became of alerts, as soon as they are committed.

use bus::{Bus, Outgoing, PublishError, Subject};
use store::outbox::{Event, Failure, Message};
use tracing::Instrument as _;

use crate::metrics::Metrics;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// To the dispatcher.
    Notifications,
    /// To whoever follows alerts.
    Changed,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Notifications, Self::Changed];

    /// The topic in the outbox and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notifications => "notifications",
            Self::Changed => "changed",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_str() == name)
    }

    fn subject(self) -> Subject {
        match self {
            Self::Notifications => Subject::Notifications,
            Self::Changed => Subject::AlertsChanged,
        }
    }
}

/// Publishes one message.
///
/// # Errors
/// Whether it may pass later. A topic of a newer release is left to a replica of that.
pub async fn publish(bus: Bus, message: Message) -> Result<(), Failure> {
    let Some(topic) = Topic::named(&message.topic) else {
        return Err(Failure::Later(format!("the topic `{}` is not known to this version", message.topic)));
    };
    let span = tracing::info_span!("publish", message = message.id);
    let mut outgoing = Outgoing::new(message.id, message.payload).header("Sl-Tenant", message.tenant);
    if let Some(traceparent) = &message.traceparent {
        telemetry::context::adopt(&span, traceparent);
        outgoing = outgoing.header(telemetry::context::HEADER, traceparent);
    }
    bus.publish(topic.subject(), outgoing).instrument(span).await.map_err(|error| match error {
        PublishError::Refused(reason) => Failure::Never(reason),
        error => Failure::Later(error.to_string()),
    })
}

/// Counts what became of messages.
pub fn count(metrics: &Metrics, event: Event) {
    let name = |topic: &str| Topic::named(topic).map_or("other", Topic::as_str);
    match event {
        Event::Published(topic, after) => {
            metrics.published.of([name(&topic)]).inc();
            metrics.publish_delay.of([name(&topic)]).observe(after.as_secs_f64());
        }
        Event::Dead(topic) => {
            metrics.outbox_dead.of([name(&topic)]).inc();
        }
        Event::Waiting(waiting) => {
            metrics.outbox_waiting.set(waiting);
        }
    }
}
