//! Every metric of the registry.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::presence::{Change, Status};

const SWEEP_BUCKETS: [f64; 8] = [0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 2.5];

/// What became of a sighting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A new resource.
    Registered,
    /// Others labels, agent or parent than before.
    Described,
    /// Nothing new in it, or something newer was known.
    Known,
    /// No sighting at all.
    Dead,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        let name = match self {
            Self::Registered => "registered",
            Self::Described => "described",
            Self::Known => "known",
            Self::Dead => "dead",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

impl EncodeLabelValue for Change {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl EncodeLabelValue for Status {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSighting {
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfChange {
    change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStatus {
    status: Status,
}

/// Clones count into the same metrics.
#[derive(Clone)]
pub struct Metrics {
    sightings: Family<OfSighting, Counter>,
    changes: Family<OfChange, Counter>,
    resources: Family<OfStatus, Gauge>,
    /// Heartbeats that the last sweep read.
    pub heartbeats: Gauge,
    /// 1 on the replica that judges.
    pub leading: Gauge,
    /// Whole sweeps, Redis and Postgres included.
    pub sweep_seconds: Histogram,
    /// Changes handed to the broker.
    pub published: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sightings: Family::default(),
            changes: Family::default(),
            resources: Family::default(),
            heartbeats: Gauge::default(),
            leading: Gauge::default(),
            sweep_seconds: Histogram::new(SWEEP_BUCKETS),
            published: Counter::default(),
        }
    }
}

impl Metrics {
    /// Metrics that `/metrics` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("sightline_registry");
        registry.register("sightings", "Sightings by what became of them", metrics.sightings.clone());
        registry.register("changes", "Changes of resources by kind of change", metrics.changes.clone());
        registry.register("resources", "Resources by status, on the replica that judges", metrics.resources.clone());
        registry.register("heartbeats", "Heartbeats read by the last sweep", metrics.heartbeats.clone());
        registry.register("leading", "1 on the replica that judges heartbeats", metrics.leading.clone());
        registry.register("sweep_seconds", "Time of a sweep", metrics.sweep_seconds.clone());
        registry.register("changes_published", "Changes that the broker has taken", metrics.published.clone());
        metrics
    }

    pub(crate) fn sighting(&self, outcome: Outcome) {
        self.sightings.get_or_create(&OfSighting { outcome }).inc();
    }

    pub(crate) fn change(&self, change: Change) {
        self.changes.get_or_create(&OfChange { change }).inc();
    }

    pub(crate) fn resources(&self, status: Status, count: i64) {
        self.resources.get_or_create(&OfStatus { status }).set(count);
    }
}
