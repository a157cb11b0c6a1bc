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
    /// What was seen of resources.
    Resources,
    /// What changed of resources.
    Changes,
    /// Transitions, and which alerts fire.
    Transitions,
    Notifications,
    Deliveries,
    /// Alerts as they are shown.
    Alerts,
    Commands,
    Dead,
    /// What the services know in common about the streams: the last message of each subject counts.
    State,
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
    /// What fires, said again from time to time.
    Levels,
    Notifications,
    Deliveries,
    /// Alerts as they are shown, whenever they change.
    AlertsChanged,
    CommandResults,
    /// Dead letters of the named service.
    Dead(&'static str),
}

/// The durable consumer of a stream whose acknowledgements mean "stored" or "handled".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) durable: &'static str,
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
            Self::Changes,
            Self::Transitions,
            Self::Notifications,
            Self::Deliveries,
            Self::Alerts,
            Self::Commands,
            Self::Dead,
            Self::State,
        ])
    }

    /// Whether it carries what agents and clients sent, in envelopes.
    #[must_use]
    pub fn is_signal(self) -> bool {
        matches!(self, Self::Metrics(_) | Self::Logs(_) | Self::Processes(_))
    }

    /// What it is, in one word, without the shard.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Metrics(_) => "metrics",
            Self::Logs(_) => "logs",
            Self::Processes(_) => "processes",
            Self::Events => "events",
            Self::Resources => "resources",
            Self::Changes => "changes",
            Self::Transitions => "transitions",
            Self::Notifications => "notifications",
            Self::Deliveries => "deliveries",
            Self::Alerts => "alerts",
            Self::Commands => "commands",
            Self::Dead => "dead",
            Self::State => "state",
        }
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
            Self::Resources => vec![Subject::ResourcesSeen.name(namespace)],
            Self::Changes => vec![Subject::ResourcesChanged.name(namespace)],
            Self::Transitions => vec![Subject::Transitions.name(namespace), Subject::Levels.name(namespace)],
            Self::Notifications => vec![Subject::Notifications.name(namespace)],
            Self::Deliveries => vec![Subject::Deliveries.name(namespace)],
            Self::Alerts => vec![Subject::AlertsChanged.name(namespace)],
            Self::Commands => vec![Subject::CommandResults.name(namespace)],
            Self::Dead => vec![format!("{namespace}.dead.*")],
            Self::State => vec![format!("{namespace}.state.>")],
        }
    }

    /// Who has to take every message of this stream; nobody has to for those that are only followed.
    pub(crate) fn writer(self) -> Option<Writer> {
        let control = |durable| Writer { durable, ack_wait: CONTROL_ACK_WAIT };
        let signal = |durable| Writer { durable, ack_wait: SIGNAL_ACK_WAIT };
        match self {
            Self::Metrics(_) => Some(signal("metric-writer")),
            Self::Logs(_) | Self::Processes(_) => Some(signal("log-writer")),
            Self::Resources => Some(control("registry")),
            Self::Transitions | Self::Deliveries => Some(control("alert-service")),
            Self::Notifications => Some(control("dispatcher")),
            Self::Events | Self::Changes | Self::Alerts | Self::Commands | Self::Dead | Self::State => None,
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
            Self::Changes => f.write_str("CHANGES"),
            Self::Transitions => f.write_str("TRANSITIONS"),
            Self::Notifications => f.write_str("NOTIFICATIONS"),
            Self::Deliveries => f.write_str("DELIVERIES"),
            Self::Alerts => f.write_str("ALERTS"),
            Self::Commands => f.write_str("COMMANDS"),
            Self::Dead => f.write_str("DEAD"),
            Self::State => f.write_str("STATE"),
        }
    }
}

impl Subject {
    /// The stream that keeps what is published here.
    #[must_use]
    pub fn stream(self) -> Stream {
        match self {
            Self::Metrics(shard) => Stream::Metrics(shard),
            Self::Logs(shard) => Stream::Logs(shard),
            Self::Processes(shard) => Stream::Processes(shard),
            Self::Events => Stream::Events,
            Self::ResourcesSeen => Stream::Resources,
            Self::ResourcesChanged => Stream::Changes,
            Self::Transitions | Self::Levels => Stream::Transitions,
            Self::Notifications => Stream::Notifications,
            Self::Deliveries => Stream::Deliveries,
            Self::AlertsChanged => Stream::Alerts,
            Self::CommandResults => Stream::Commands,
            Self::Dead(_) => Stream::Dead,
        }
    }

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
            Self::Levels => format!("{namespace}.alerts.levels"),
            Self::Notifications => format!("{namespace}.alerts.notifications"),
            Self::Deliveries => format!("{namespace}.alerts.deliveries"),
            Self::AlertsChanged => format!("{namespace}.alerts.changed"),
            Self::CommandResults => format!("{namespace}.commands.result"),
            Self::Dead(service) => format!("{namespace}.dead.{service}"),
        }
    }
}

/// Where the counts of `stream` are written down.
pub(crate) fn counts_subject(namespace: &str, stream: Stream) -> String {
    format!("{namespace}.state.counts.{stream}")
}

/// Where it is noted that a message is being handled alone.
pub(crate) fn trial_subject(namespace: &str, service: &str, stream: &str, sequence: u64) -> String {
    format!("{namespace}.state.trials.{service}.{stream}.{sequence}")
}

/// Where it is written who does what one replica does for all.
pub(crate) fn claim_subject(namespace: &str, service: &str, what: &str) -> String {
    format!("{namespace}.state.claims.{service}.{what}")
}

/// Where the number of shards is written down.
pub(crate) fn shards_subject(namespace: &str) -> String {
    format!("{namespace}.state.shards")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        assert_eq!(Stream::Metrics(3).name("sl"), "SL_METRICS_03");
        assert_eq!(Subject::Dead("log-writer").name("sl"), "sl.dead.log-writer");
        assert_eq!(Stream::all(2).count(), 16);
    }

    #[test]
    fn a_subject_is_of_the_stream_that_keeps_it() {
        let all = [
            Subject::Metrics(1),
            Subject::Logs(1),
            Subject::Processes(1),
            Subject::Events,
            Subject::ResourcesSeen,
            Subject::ResourcesChanged,
            Subject::Transitions,
            Subject::Levels,
            Subject::Notifications,
            Subject::Deliveries,
            Subject::AlertsChanged,
            Subject::CommandResults,
        ];
        for subject in all {
            assert!(subject.stream().subjects("sl").contains(&subject.name("sl")), "{subject:?}");
        }
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
