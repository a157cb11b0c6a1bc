//! Every metric of the metric-writer.

use std::time::Duration;

use series::{CacheUse, Tally};

use crate::store::WriteError;

telemetry::metrics! {
    /// Clones count into the same metrics.
    pub(crate) struct Metrics in "sightline_metric_writer" {
        /// Envelopes by what became of them: stored, dead
        pub(crate) envelopes: Counter by [outcome],
        /// Data points whose envelope is stored
        pub(crate) items_stored: Counter,
        /// Samples that the store answered for, repeats included
        pub(crate) samples_stored: Counter,
        /// Samples of a series within one millisecond of another with another value, of which a store keeps one
        pub(crate) samples_melted: Counter,
        /// Points that have no series, by reason
        pub(crate) points_skipped: Counter by [reason],
        /// Quantiles and sums that are not a number, left out of their point
        pub(crate) samples_not_a_number: Counter,
        /// Labels that an info series had too many
        pub(crate) labels_cut: Counter,
        /// Write requests by what the store said: stored, refused, away
        pub(crate) writes: Counter by [outcome],
        /// Time that the store takes for a write
        pub(crate) write_duration [Seconds]: Histogram = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0],
        /// Age, since the gateway took it, of the oldest that is being written; 0 when nothing waits
        pub(crate) backlog_age [Seconds]: FloatGauge,
        /// Points whose series was found prepared
        pub(crate) cache_hits: Counter,
        /// Points whose series had to be prepared
        pub(crate) cache_misses: Counter,
        /// Prepared series that there was no room to keep
        pub(crate) cache_unkept: Counter,
        /// Prepared series that gave way to others
        pub(crate) cache_evictions: Counter,
        /// Memory that prepared series take
        pub(crate) cache [Bytes]: Gauge,
        /// Points of which series are kept prepared
        pub(crate) cache_entries: Gauge,
        /// Rows and labels that the store says it dropped, from whomever they came, by reason
        pub(crate) store_dropped: Counter by [reason],
        /// Restarts of the store that were noticed
        pub(crate) store_restarts: Counter,
        /// Samples written again after a restart of the store
        pub(crate) samples_replayed: Counter,
        /// Whether this replica is the one that watches the store for all
        pub(crate) watching: Gauge,
    }
}

impl Metrics {
    pub(crate) fn read(&self, tally: &Tally) {
        for (skip, count) in tally.skipped.iter() {
            self.points_skipped.of([skip.as_str()]).inc_by(count);
        }
        self.samples_not_a_number.inc_by(tally.not_numbers);
        self.labels_cut.inc_by(tally.cut_labels);
    }

    pub(crate) fn wrote(&self, written: &Result<(), WriteError>, took: Duration) {
        let outcome = match written {
            Ok(()) => "stored",
            Err(WriteError::Refused { .. }) => "refused",
            Err(WriteError::Away(_)) => "away",
        };
        self.writes.of([outcome]).inc();
        self.write_duration.observe(took.as_secs_f64());
    }

    /// Counts what the cache did since `before`.
    pub(crate) fn cached(&self, before: CacheUse, now: CacheUse) {
        self.cache_hits.inc_by(now.hits - before.hits);
        self.cache_misses.inc_by(now.misses - before.misses);
        self.cache_unkept.inc_by(now.unkept - before.unkept);
        self.cache_evictions.inc_by(now.evicted - before.evicted);
        self.cache.set(i64::try_from(now.bytes).unwrap_or(i64::MAX));
        self.cache_entries.set(i64::try_from(now.entries).unwrap_or(i64::MAX));
    }
}
