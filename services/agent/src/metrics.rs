//! Every metric of the agent about itself.

telemetry::metrics! {
    /// Clones share the values.
    pub struct Metrics in "sightline_agent" {
        /// Points and log lines that a gateway has acknowledged
        pub items_sent: Counter by [signal],
        /// Requests that a gateway has acknowledged
        pub requests_sent: Counter by [signal],
        /// Points and log lines given up
        pub items_dropped: Counter by [signal, reason],
        /// Points and log lines that a gateway left out of a request it took
        pub items_rejected: Counter by [signal],
        /// Attempts to send a request that failed, by gRPC status code
        pub export_failures: Counter by [signal, code],
        /// Rounds in which a group of host metrics could not be read
        pub collect_failures: Counter by [source],
        /// Size of the requests that wait to be acknowledged
        pub spool [Bytes]: Gauge,
        /// Requests that wait to be acknowledged
        pub spool_requests: Gauge by [signal],
        /// Requests in the spool that a newer agent wrote and this one cannot send
        pub spool_unknown: Gauge,
        /// Lines read from log files
        pub log_lines: Counter,
        /// Lines cut at their greatest length
        pub log_lines_cut: Counter,
        /// Lines that were neither UTF-8 nor marked as UTF-16
        pub log_lines_invalid: Counter,
        /// Log files replaced by new ones
        pub log_rotations: Counter,
        /// Log files that were emptied
        pub log_truncations: Counter,
        /// Log files of which it cannot be known whether they were emptied, and which were read again
        pub log_guesses: Counter,
        /// Log files that cannot be read now
        pub log_files_unreadable: Gauge,
        /// Paths at which no log file has been yet
        pub log_files_missing: Gauge,
        /// Times that reading logs waited for room in the spool
        pub tail_stalls: Counter,
        /// Process snapshots that a gateway has acknowledged
        pub process_snapshots_sent: Counter,
        /// Process snapshots that were not acknowledged
        pub process_snapshots_failed: Counter,
        /// Process snapshots that were too large and left something out
        pub process_snapshots_cut: Counter,
        /// Commands answered with a refusal
        pub commands_refused: Counter,
    }
}

/// Why items were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    SpoolFull,
    /// The gateway will never take them.
    Refused,
    Damaged,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpoolFull => "spool_full",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
        }
    }
}

/// A size as a gauge holds it.
pub fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
impl Metrics {
    pub fn for_test() -> Self {
        Self::register(&mut telemetry::metrics::Registry::default())
    }
}
