//! Every metric of the log-writer.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(crate) enum Outcome {
    Stored,
    Duplicate,
    DeadLettered,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(crate) enum Correction {
    NulByte,
    Time,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CorrectionLabel {
    kind: Correction,
}

#[derive(Clone)]
pub(crate) struct Metrics {
    items: Family<OutcomeLabel, Counter>,
    corrections: Family<CorrectionLabel, Counter>,
    pub(crate) commit_seconds: Histogram,
    pub(crate) oldest_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub(crate) searches: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            items: Family::default(),
            corrections: Family::default(),
            commit_seconds: Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
            oldest_seconds: Gauge::default(),
            searches: Counter::default(),
        };
        registry.register(
            "sightline_log_writer_items",
            "Records and snapshots, by what became of them",
            metrics.items.clone(),
        );
        registry.register(
            "sightline_log_writer_corrections",
            "Values that could not be stored as they were, by what was put right",
            metrics.corrections.clone(),
        );
        registry.register_with_unit(
            "sightline_log_writer_commit_duration",
            "Time to store one transaction",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        registry.register_with_unit(
            "sightline_log_writer_delay",
            "Age of the oldest envelope in the newest transaction, since the gateway took it in",
            Unit::Seconds,
            metrics.oldest_seconds.clone(),
        );
        registry.register("sightline_log_writer_searches", "Searches answered", metrics.searches.clone());
        metrics
    }

    pub(crate) fn count(&self, outcome: Outcome, items: u64) {
        self.items.get_or_create(&OutcomeLabel { outcome }).inc_by(items);
    }

    pub(crate) fn corrected(&self, kind: Correction, count: u64) {
        self.corrections.get_or_create(&CorrectionLabel { kind }).inc_by(count);
    }
}
