//! What a request carries.

use crate::schema::{LOGS, Levels, METRICS};

/// What a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// What its items are called.
    #[must_use]
    pub fn items(self) -> &'static str {
        match self {
            Self::Metrics => "data points",
            Self::Logs => "log records",
        }
    }

    pub(crate) fn levels(self) -> &'static Levels {
        match self {
            Self::Metrics => &METRICS,
            Self::Logs => &LOGS,
        }
    }
}
