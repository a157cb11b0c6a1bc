//! The streams there are, the subjects that feed them, and the durable consumer that must store or handle each message.

use std::fmt;
use std::time::Duration;

/// A JetStream stream. The number is the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    Metrics(u16),
    Logs(u16),
    Processes(u16),
    Events,
    Resources,
    Transitions,
    Notifications,
    Deliveries,
    Commands,
    Dead,
}

/// Where a message is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    Metrics(u16),
    Logs(u16),
    Processes(u16),
    Events,
    ResourcesSeen,
    ResourcesChanged,
    Transitions,
    Notifications,
    Deliveries,
    CommandResults,
    /// Dead letters of the named service.
    Dead(&'static str),
}

/// The durable consumer of a stream whose acknowledgements mean "stored" or "handled".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) durable: &'static str,
    /// What it reads of the stream; the whole of it when there is none.
    pub(crate) filter: Option<Subject>,
    pub(crate) ack_wait: Duration,
}

/// Batches are held while a store answers, and longer while it is away.
const SIGNAL_ACK_WAIT: Duration = Duration::from_secs(30);
/// Small messages that are handled one at a time: what a killed replica held comes back soon.
const CONTROL_ACK_WAIT: Duration = Duration::from_secs(5);

impl Stream {
    /// Every stream of an installation with that many shards.
    pub fn all(shards: u16) -> impl Iterator<Item = Self> {
        let sharded = (0..shards).flat_map(|n| [Self::Metrics(n), Self::Logs(n), Self::Processes(n)]);
        sharded.chain([
            Self::Events,
            Self::Resources,
            Self::Transitions,
            Self::Notifications,
            Self::Deliveries,
            Self::Commands,
            Self::Dead,
        ])
    }

    /// Whether it carries what agents and clients sent, in envelopes.
    #[must_use]
    pub fn is_signal(self) -> bool {
        matches!(self, Self::Metrics(_) | Self::Logs(_) | Self::Processes(_))
    }

    /// The name on the server, for example `SL_METRICS_00`.
    #[must_use]
    pub fn name(self, namespace: &str) -> String {
        format!("{}_{self}", namespace.to_ascii_uppercase())
    }

    pub(crate) fn subjects(self, namespace: &str) -> Vec<String> {
        match self {
            Self::Metrics(shard) => vec![Subject::Metrics(shard).name(namespace)],
            Self::Logs(shard) => vec![Subject::Logs(shard).name(namespace)],
            Self::Processes(shard) => vec![Subject::Processes(shard).name(namespace)],
            Self::Events => vec![Subject::Events.name(namespace)],
            Self::Resources => {
                vec![Subject::ResourcesSeen.name(namespace), Subject::ResourcesChanged.name(namespace)]
            }
            Self::Transitions => vec![Subject::Transitions.name(namespace)],
            Self::Notifications => vec![Subject::Notifications.name(namespace)],
            Self::Deliveries => vec![Subject::Deliveries.name(namespace)],
            Self::Commands => vec![Subject::CommandResults.name(namespace)],
            Self::Dead => vec![format!("{namespace}.dead.*")],
        }
    }

    /// Who has to take every message of this stream; nobody has to for those that are only followed.
    pub(crate) fn writer(self) -> Option<Writer> {
        let control = |durable| Writer { durable, filter: None, ack_wait: CONTROL_ACK_WAIT };
        let signal = |durable| Writer { durable, filter: None, ack_wait: SIGNAL_ACK_WAIT };
        match self {
            Self::Metrics(_) => Some(signal("metric-writer")),
            Self::Logs(_) | Self::Processes(_) => Some(signal("log-writer")),
            Self::Resources => Some(Writer { filter: Some(Subject::ResourcesSeen), ..control("registry") }),
            Self::Transitions | Self::Deliveries => Some(control("alert-service")),
            Self::Notifications => Some(control("dispatcher")),
            Self::Events | Self::Commands | Self::Dead => None,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metrics(shard) => write!(f, "METRICS_{shard:02}"),
            Self::Logs(shard) => write!(f, "LOGS_{shard:02}"),
            Self::Processes(shard) => write!(f, "PROCESSES_{shard:02}"),
            Self::Events => f.write_str("EVENTS"),
            Self::Resources => f.write_str("RESOURCES"),
            Self::Transitions => f.write_str("TRANSITIONS"),
            Self::Notifications => f.write_str("NOTIFICATIONS"),
            Self::Deliveries => f.write_str("DELIVERIES"),
            Self::Commands => f.write_str("COMMANDS"),
            Self::Dead => f.write_str("DEAD"),
        }
    }
}

impl Subject {
    /// The subject on the server, for example `sl.metrics.00`.
    #[must_use]
    pub fn name(self, namespace: &str) -> String {
        match self {
            Self::Metrics(shard) => format!("{namespace}.metrics.{shard:02}"),
            Self::Logs(shard) => format!("{namespace}.logs.{shard:02}"),
            Self::Processes(shard) => format!("{namespace}.processes.{shard:02}"),
            Self::Events => format!("{namespace}.events"),
            Self::ResourcesSeen => format!("{namespace}.resources.seen"),
            Self::ResourcesChanged => format!("{namespace}.resources.changed"),
            Self::Transitions => format!("{namespace}.alerts.transitions"),
            Self::Notifications => format!("{namespace}.alerts.notifications"),
            Self::Deliveries => format!("{namespace}.alerts.deliveries"),
            Self::CommandResults => format!("{namespace}.commands.result"),
            Self::Dead(service) => format!("{namespace}.dead.{service}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        assert_eq!(Stream::Metrics(3).name("sl"), "SL_METRICS_03");
        assert_eq!(Subject::Dead("log-writer").name("sl"), "sl.dead.log-writer");
        assert_eq!(Stream::all(2).count(), 13);
    }

    #[test]
    fn no_two_streams_share_a_subject() {
        let mut subjects: Vec<_> = Stream::all(16).flat_map(|stream| stream.subjects("sl")).collect();
        let count = subjects.len();
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), count);
    }
}
