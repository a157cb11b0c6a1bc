//! Every metric of this service.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::intake::Taken;

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
    transitions: Family<ByOutcome, Counter>,
    deliveries: Family<ByState, Counter>,
    pruned: Family<ByTable, Counter>,
    /// Notifications that the broker has acknowledged.
    pub notifications: Counter,
    /// Notifications that wait for the broker.
    pub outbox_waiting: Gauge,
    /// Seconds from a notification's transaction to the broker's acknowledgement.
    pub publish_delay: Histogram,
    signal_to_page: Histogram,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            transitions: Family::default(),
            deliveries: Family::default(),
            pruned: Family::default(),
            notifications: Counter::default(),
            outbox_waiting: Gauge::default(),
            publish_delay: Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0]),
            signal_to_page: Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0]),
        };
        let registry = registry.sub_registry_with_prefix("sightline_alert_service");
        registry.register("transitions", "Transitions by what they did", metrics.transitions.clone());
        registry.register("deliveries", "Deliveries heard of, by how they ended", metrics.deliveries.clone());
        registry.register("pruned_rows", "Rows deleted past their retention, by table", metrics.pruned.clone());
        registry.register("notifications", "Notifications published", metrics.notifications.clone());
        registry.register("outbox_waiting", "Notifications not published yet", metrics.outbox_waiting.clone());
        registry.register_with_unit(
            "publish_delay",
            "From a notification's transaction to the broker's acknowledgement",
            Unit::Seconds,
            metrics.publish_delay.clone(),
        );
        registry.register_with_unit(
            "signal_to_page",
            "From the gateway's receipt of the deciding sample to the receiver's answer, for firing alerts",
            Unit::Seconds,
            metrics.signal_to_page.clone(),
        );
        metrics
    }

    /// Counts what became of a transition.
    pub fn taken(&self, taken: &Taken) {
        self.count(match taken {
            Taken::Applied(outcome, _) => outcome.as_str(),
            Taken::Repeated => "repeated",
            Taken::AwaitsPredecessor => "awaits_predecessor",
            Taken::Refused(_) => "refused",
        });
    }

    /// Counts a message that is no transition.
    pub fn malformed(&self) {
        self.count("malformed");
    }

    /// Counts a transition that is older than what is remembered.
    pub fn expired(&self) {
        self.count("expired");
    }

    /// Counts rows past their retention.
    pub fn pruned(&self, table: &'static str, rows: u64) {
        self.pruned.get_or_create(&ByTable { table }).inc_by(rows);
    }

    /// Counts the first news of a delivery, with how long the page took where that can be said.
    pub fn delivered(&self, delivered: bool, signal_to_page: Option<f64>) {
        let state = if delivered { "delivered" } else { "failed" };
        self.deliveries.get_or_create(&ByState { state }).inc();
        if let Some(seconds) = signal_to_page.filter(|_| delivered) {
            self.signal_to_page.observe(seconds);
        }
    }

    fn count(&self, outcome: &'static str) {
        self.transitions.get_or_create(&ByOutcome { outcome }).inc();
    }
}
