//! Every metric of the log-writer.

telemetry::metrics! {
    /// What the log-writer counts.
    pub(crate) struct Metrics in "sightline_log_writer" {
        /// Records and snapshots, by what became of them
        pub(crate) items: Counter by [outcome],
        /// Values that could not be stored as they were, by what was put right
        pub(crate) corrections: Counter by [kind],
        /// Time to store one transaction
        pub(crate) commit_duration [Seconds]: Histogram = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0],
        /// Age of the oldest envelope that is being stored, since the gateway took it in; of the last one where none is
        pub(crate) delay [Seconds]: FloatGauge,
        /// Searches answered
        pub(crate) searches: Counter,
        /// Rows that a later day's partition could not be made for at once, since they lay in the default partition
        pub(crate) moved_rows: Counter,
    }
}

/// What became of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stored,
    Duplicate,
    DeadLettered,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

impl Metrics {
    pub(crate) fn count(&self, outcome: Outcome, items: u64) {
        self.items.of([outcome.as_str()]).inc_by(items);
    }

    pub(crate) fn corrected(&self, nul_bytes: u64, times: u64) {
        self.corrections.of(["nul_byte"]).inc_by(nul_bytes);
        self.corrections.of(["time"]).inc_by(times);
    }
}
