//! What can be listened to, and the streams that it comes from.

use bus::Stream;

/// What can be listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Metrics,
    Logs,
    Alerts,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Metrics, Self::Logs, Self::Alerts];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Alerts => "alerts",
        }
    }

    pub(crate) fn streams(self, shards: u16) -> Vec<Stream> {
        match self {
            Self::Metrics => (0..shards).map(Stream::Metrics).collect(),
            Self::Logs => (0..shards).map(Stream::Logs).collect(),
            Self::Alerts => vec![Stream::Alerts],
        }
    }
}
