//! Every metric of this service.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::evaluation::Tally;
use crate::transition::State;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySignal {
    signal: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// Which stream something was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Metrics,
    Logs,
}

impl Signal {
    /// The signal's name in labels and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// Cheap to clone; clones share the values.
#[derive(Clone)]
pub struct Metrics {
    items: Family<BySignal, Counter>,
    evaluations: Family<BySignal, Counter>,
    skipped: Family<ByReason, Counter>,
    transitions: Family<ByState, Counter>,
    missed: Family<BySignal, Counter>,
    unreadable: Family<BySignal, Counter>,
    lag: Histogram,
    pub rules: Gauge,
    pub owned_shards: Gauge,
    pub snapshot_age: Gauge<f64, AtomicU64>,
    snapshot_size: Histogram,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            items: Family::default(),
            evaluations: Family::default(),
            skipped: Family::default(),
            transitions: Family::default(),
            missed: Family::default(),
            unreadable: Family::default(),
            lag: Histogram::new([0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0]),
            rules: Gauge::default(),
            owned_shards: Gauge::default(),
            snapshot_age: Gauge::default(),
            snapshot_size: Histogram::new([1e3, 1e4, 1e5, 1e6, 1e7, 1e8]),
        };
        let registry = registry.sub_registry_with_prefix("sightline_rule_engine");
        registry.register("samples", "Samples and log records read", metrics.items.clone());
        registry.register("evaluations", "Times that a rule looked at a sample or line", metrics.evaluations.clone());
        registry.register(
            "skipped_samples",
            "Samples and log records that no rule looked at, by reason",
            metrics.skipped.clone(),
        );
        registry.register("transitions", "Transitions that the broker acknowledged", metrics.transitions.clone());
        registry.register(
            "missed_messages",
            "Messages that the stream dropped before they were read",
            metrics.missed.clone(),
        );
        registry.register(
            "unreadable_messages",
            "Messages that could not be read and were passed over",
            metrics.unreadable.clone(),
        );
        registry.register_with_unit(
            "evaluation_lag",
            "From the gateway's receipt of an envelope to the end of its evaluation",
            Unit::Seconds,
            metrics.lag.clone(),
        );
        registry.register("rules", "Rules in force, of all tenants", metrics.rules.clone());
        registry.register("owned_shards", "Shards that this replica evaluates", metrics.owned_shards.clone());
        registry.register_with_unit(
            "snapshot_age",
            "Age of the oldest snapshot of an owned shard",
            Unit::Seconds,
            metrics.snapshot_age.clone(),
        );
        registry.register_with_unit(
            "snapshot_size",
            "Size of saved snapshots, compressed",
            Unit::Bytes,
            metrics.snapshot_size.clone(),
        );
        metrics
    }

    pub fn evaluated(&self, signal: Signal, tally: Tally, lag_seconds: f64) {
        let by_signal = BySignal { signal: signal.as_str() };
        self.items.get_or_create(&by_signal).inc_by(tally.items);
        self.evaluations.get_or_create(&by_signal).inc_by(tally.evaluated);
        let skipped = [
            ("late", tally.late),
            ("ahead", tally.ahead),
            ("repeated", tally.repeated),
            ("over_capacity", tally.over_capacity),
        ];
        for (reason, count) in skipped {
            if count > 0 {
                self.skipped.get_or_create(&ByReason { reason }).inc_by(count);
            }
        }
        self.lag.observe(lag_seconds);
    }

    pub fn published(&self, state: State) {
        self.transitions.get_or_create(&ByState { state: state.as_str() }).inc();
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes stay far below 2^53")]
    pub fn snapshot(&self, bytes: usize) {
        self.snapshot_size.observe(bytes as f64);
    }

    pub fn missed(&self, signal: Signal, messages: u64) {
        self.missed.get_or_create(&BySignal { signal: signal.as_str() }).inc_by(messages);
    }

    pub fn unreadable(&self, signal: Signal) {
        self.unreadable.get_or_create(&BySignal { signal: signal.as_str() }).inc();
    }
}
