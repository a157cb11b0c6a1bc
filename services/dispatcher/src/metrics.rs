//! Every metric of this service.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::delivery::{Next, Outcome};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByTable {
    table: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

/// Handles on the metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    /// Notifications taken in.
    pub notifications: Counter,
    /// Messages that are no notification.
    pub malformed: Counter,
    /// Notifications older than what is remembered.
    pub expired: Counter,
    /// Deliveries that are not over.
    pub pending: Gauge,
    attempts: Family<ByOutcome, Counter>,
    deliveries: Family<ByState, Counter>,
    pruned: Family<ByTable, Counter>,
    attempt_duration: Histogram,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            notifications: Counter::default(),
            malformed: Counter::default(),
            expired: Counter::default(),
            pending: Gauge::default(),
            attempts: Family::default(),
            deliveries: Family::default(),
            pruned: Family::default(),
            attempt_duration: Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
        };
        let registry = registry.sub_registry_with_prefix("sightline_dispatcher");
        registry.register("notifications", "Notifications taken in", metrics.notifications.clone());
        registry.register("malformed", "Messages that are no notification", metrics.malformed.clone());
        registry.register("expired", "Notifications older than what is remembered", metrics.expired.clone());
        registry.register("pruned_rows", "Rows deleted past their retention, by table", metrics.pruned.clone());
        registry.register("deliveries_pending", "Deliveries that are not over", metrics.pending.clone());
        registry.register("attempts", "Attempts by how they ended", metrics.attempts.clone());
        registry.register("deliveries", "Deliveries that were tried, by how they ended", metrics.deliveries.clone());
        registry.register_with_unit(
            "attempt_duration",
            "How long attempts took",
            Unit::Seconds,
            metrics.attempt_duration.clone(),
        );
        metrics
    }

    /// Counts an attempt and what came of it.
    pub fn attempted(&self, outcome: &Outcome, next: &Next, took: Duration) {
        let outcome = match outcome {
            Outcome::Answered { status: 200..=299, .. } => "delivered",
            Outcome::Answered { .. } => "refused",
            Outcome::Unanswered(_) => "unanswered",
            Outcome::Impossible(_) => "impossible",
        };
        self.attempts.get_or_create(&ByOutcome { outcome }).inc();
        self.attempt_duration.observe(took.as_secs_f64());
        match next {
            Next::Delivered => self.ended("delivered"),
            Next::Failed(_) => self.ended("failed"),
            Next::Retry(_) => {}
        }
    }

    /// Counts rows past their retention.
    pub fn pruned(&self, table: &'static str, rows: u64) {
        self.pruned.get_or_create(&ByTable { table }).inc_by(rows);
    }

    fn ended(&self, state: &'static str) {
        self.deliveries.get_or_create(&ByState { state }).inc();
    }
}
