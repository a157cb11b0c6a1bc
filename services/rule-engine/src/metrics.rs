//! Every metric of this service.

use crate::evaluation::Tally;
use crate::signal::Signal;

telemetry::metrics! {
    /// Clones share the values.
    pub struct Metrics in "sightline_rule_engine" {
        /// Samples and log records read
        samples: Counter by [signal],
        /// Times that a rule looked at a sample or line
        evaluations: Counter by [signal],
        /// Samples and log records that no rule looked at, or not as they are, by reason
        skipped_samples: Counter by [reason],
        /// Labels of resources that were left out of what travels with transitions
        cut_labels: Counter,
        /// Transitions that the broker acknowledged
        pub transitions: Counter by [state],
        /// Transitions that came too late for anybody to be told
        pub late_transitions: Counter,
        /// Transitions that the broker will never take
        pub refused_transitions: Counter,
        /// Messages that the stream dropped before they were read
        pub missed_messages: Counter by [signal],
        /// Messages that could not be read and were passed over
        pub unreadable_messages: Counter by [signal],
        /// Messages set aside since evaluating them ended their owner twice
        pub set_aside_messages: Counter by [signal],
        /// Evaluations of a message that did not end, by how
        pub failed_evaluations: Counter by [how],
        /// Shards that this replica gave up since it made no progress
        pub given_up_shards: Counter,
        /// From the gateway's receipt of an envelope to the end of its evaluation
        pub evaluation_lag [Seconds]: Histogram = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0],
        /// Rules that exist, of all tenants
        pub rules: Gauge,
        /// Rules among them that this version does not understand and does not evaluate
        pub unknown_rules: Gauge,
        /// Shards that this replica evaluates
        pub owned_shards: Gauge,
        /// Things that fire in a lane, at each round
        pub firing: Histogram = [0.0, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6],
        /// What rules think in restored snapshots that this version does not understand, and carries
        pub carried_states: Counter,
        /// State of rules that were no longer in force, or of damaged parts, that was let go at a takeover
        pub dropped_states: Counter,
        /// Age of the oldest snapshot of an owned shard
        pub snapshot_age [Seconds]: FloatGauge,
        /// Size of the saved parts of a snapshot, compressed
        pub snapshot_size [Bytes]: Histogram = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8],
        /// Snapshots that could not be written, since they could not be read again
        pub unwritable_snapshots: Counter,
        /// Bytes that the state of a lane takes, about, at each round
        pub state_size [Bytes]: Histogram = [1e4, 1e5, 1e6, 1e7, 1e8, 1e9],
    }
}

impl Metrics {
    /// What an envelope came to.
    pub fn evaluated(&self, signal: Signal, tally: Tally, lag_seconds: f64) {
        self.samples.of([signal.as_str()]).inc_by(tally.items);
        self.evaluations.of([signal.as_str()]).inc_by(tally.evaluated);
        self.cut_labels.inc_by(tally.cut_labels);
        let skipped = [
            ("not_newer", tally.not_newer),
            ("ahead", tally.ahead),
            ("too_old", tally.too_old),
            ("repeated", tally.repeated),
            ("over_capacity", tally.over_capacity),
            ("over_work", tally.over_work),
        ];
        for (reason, count) in skipped {
            if count > 0 {
                self.skipped_samples.of([reason]).inc_by(count);
            }
        }
        self.evaluation_lag.observe(lag_seconds);
    }
}
