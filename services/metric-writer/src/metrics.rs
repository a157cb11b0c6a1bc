//! Every metric of the metric-writer.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use series::Tally;

use crate::batch::Batch;

/// What became of an envelope or a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    Stored,
    Dead,
    Away,
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

#[derive(Clone)]
pub(crate) struct Metrics {
    envelopes: Family<Labels, Counter>,
    writes: Family<Labels, Counter>,
    items: Counter,
    samples: Counter,
    skipped_points: Counter,
    cut_labels: Counter,
    write_seconds: Histogram,
    backlog_age: Gauge<f64, AtomicU64>,
    pub(crate) store_restarts: Counter,
    pub(crate) replayed_samples: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            envelopes: Family::default(),
            writes: Family::default(),
            items: Counter::default(),
            samples: Counter::default(),
            skipped_points: Counter::default(),
            cut_labels: Counter::default(),
            write_seconds: Histogram::new([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0]),
            backlog_age: Gauge::default(),
            store_restarts: Counter::default(),
            replayed_samples: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("sightline_metric_writer");
        registry.register("envelopes", "Envelopes stored or made dead letters", metrics.envelopes.clone());
        registry.register("writes", "Write requests, by what the store said", metrics.writes.clone());
        registry.register("items_stored", "Data points whose envelope is stored", metrics.items.clone());
        registry.register(
            "samples_stored",
            "Samples that the store answered for, repeats included",
            metrics.samples.clone(),
        );
        registry.register(
            "points_skipped",
            "Points that have no series: delta, exponential, no value",
            metrics.skipped_points.clone(),
        );
        registry.register("labels_cut", "Labels over the limit of a series", metrics.cut_labels.clone());
        registry.register(
            "write_duration_seconds",
            "Time that the store takes for a write",
            metrics.write_seconds.clone(),
        );
        registry.register(
            "backlog_age_seconds",
            "Age, since the gateway took it, of what was stored last",
            metrics.backlog_age.clone(),
        );
        registry.register("store_restarts", "Restarts of the store that were noticed", metrics.store_restarts.clone());
        registry.register(
            "samples_replayed",
            "Samples written again after a restart of the store",
            metrics.replayed_samples.clone(),
        );
        metrics
    }

    pub(crate) fn read(&self, tally: Tally) {
        self.skipped_points.inc_by(tally.skipped.total());
        self.cut_labels.inc_by(tally.cut_labels);
    }

    pub(crate) fn wrote(&self, outcome: Outcome, took: Duration) {
        self.writes.get_or_create(&Labels { outcome }).inc();
        self.write_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn stored(&self, batch: &Batch) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.envelopes.get_or_create(&Labels { outcome: Outcome::Stored }).inc_by(count(batch.units.len()));
        self.items.inc_by(batch.item_count());
        self.samples.inc_by(count(batch.samples.len()));
        if let Some(oldest) = batch.oldest() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.backlog_age.set(now.saturating_sub(Duration::from_nanos(oldest)).as_secs_f64());
        }
    }

    pub(crate) fn dead(&self) {
        self.envelopes.get_or_create(&Labels { outcome: Outcome::Dead }).inc();
    }

    /// Nothing waits.
    pub(crate) fn idle(&self) {
        self.backlog_age.set(0.0);
    }
}
