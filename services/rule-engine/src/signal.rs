//! The two signals that rules are evaluated on; each is a lane of its own in every shard.

use bus::{Schema, Stream, Subject};

/// Which stream of a shard something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Samples of series.
    Metrics,
    /// Lines of resources.
    Logs,
}

impl Signal {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Logs];

    /// The name in labels, logs, rows and transitions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// The stream of shard `number`.
    #[must_use]
    pub fn stream(self, number: u16) -> Stream {
        match self {
            Self::Metrics => Stream::Metrics(number),
            Self::Logs => Stream::Logs(number),
        }
    }

    /// Where that stream is published to.
    #[must_use]
    pub fn subject(self, number: u16) -> Subject {
        match self {
            Self::Metrics => Subject::Metrics(number),
            Self::Logs => Subject::Logs(number),
        }
    }

    /// What its envelopes hold.
    #[must_use]
    pub fn schema(self) -> Schema {
        match self {
            Self::Metrics => Schema::OtlpMetrics,
            Self::Logs => Schema::OtlpLogs,
        }
    }
}
