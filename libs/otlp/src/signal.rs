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
    pub(crate) fn levels(self) -> &'static Levels {
        match self {
            Self::Metrics => &METRICS,
            Self::Logs => &LOGS,
        }
    }
}
