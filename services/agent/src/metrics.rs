//! Every metric of the agent about itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::collect::Source;
use crate::spool::Signal;

/// Why items were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    SpoolFull,
    /// The gateway will never take them.
    Refused,
    Damaged,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BySignal {
    signal: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByReason {
    signal: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByCode {
    signal: &'static str,
    /// A gRPC status code, of which there are seventeen.
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BySource {
    source: &'static str,
}

#[derive(Debug, Default)]
pub struct Metrics {
    items_sent: Family<BySignal, Counter>,
    batches_sent: Family<BySignal, Counter>,
    items_dropped: Family<ByReason, Counter>,
    items_rejected: Family<BySignal, Counter>,
    export_failures: Family<ByCode, Counter>,
    collect_failures: Family<BySource, Counter>,
    spool_bytes: Gauge,
    spool_batches: Family<BySignal, Gauge>,
    pub log_lines: Counter,
    pub log_lines_cut: Counter,
    pub log_lines_invalid: Counter,
    pub log_rotations: Counter,
    pub log_truncations: Counter,
    pub tail_stalls: Counter,
    pub snapshots_sent: Counter,
    pub snapshots_failed: Counter,
    pub commands_refused: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let own = registry.sub_registry_with_prefix("sightline_agent");
        own.register("items_sent", "Points and log lines that a gateway has acknowledged", metrics.items_sent.clone());
        own.register("batches_sent", "Batches that a gateway has acknowledged", metrics.batches_sent.clone());
        own.register("items_dropped", "Points and log lines given up", metrics.items_dropped.clone());
        own.register(
            "items_rejected",
            "Points and log lines that a gateway left out of a batch it took",
            metrics.items_rejected.clone(),
        );
        own.register("export_failures", "Attempts to send a batch that failed", metrics.export_failures.clone());
        own.register(
            "collect_failures",
            "Rounds in which a group of host metrics could not be read",
            metrics.collect_failures.clone(),
        );
        own.register_with_unit("spool", "Size of the batches on disk", Unit::Bytes, metrics.spool_bytes.clone());
        own.register("spool_batches", "Batches that wait to be acknowledged", metrics.spool_batches.clone());
        own.register("log_lines", "Lines read from log files", metrics.log_lines.clone());
        own.register("log_lines_cut", "Lines cut at their greatest length", metrics.log_lines_cut.clone());
        own.register("log_lines_invalid", "Lines that were not UTF-8", metrics.log_lines_invalid.clone());
        own.register("log_rotations", "Log files replaced by new ones", metrics.log_rotations.clone());
        own.register("log_truncations", "Log files that became shorter", metrics.log_truncations.clone());
        own.register(
            "tail_stalls",
            "Times that reading logs waited for room in the spool",
            metrics.tail_stalls.clone(),
        );
        own.register(
            "process_snapshots_sent",
            "Process snapshots that a gateway has acknowledged",
            metrics.snapshots_sent.clone(),
        );
        own.register(
            "process_snapshots_failed",
            "Process snapshots that were not acknowledged",
            metrics.snapshots_failed.clone(),
        );
        own.register("commands_refused", "Commands answered with a refusal", metrics.commands_refused.clone());
        metrics
    }

    pub fn sent(&self, signal: Signal, items: u64) {
        let labels = BySignal { signal: signal.name() };
        self.batches_sent.get_or_create(&labels).inc();
        self.items_sent.get_or_create(&labels).inc_by(items);
    }

    pub fn rejected(&self, signal: Signal, items: u64) {
        self.items_rejected.get_or_create(&BySignal { signal: signal.name() }).inc_by(items);
    }

    pub fn dropped(&self, signal: Signal, reason: Reason, items: u64) {
        let reason = match reason {
            Reason::SpoolFull => "spool_full",
            Reason::Refused => "refused",
            Reason::Damaged => "damaged",
        };
        self.items_dropped.get_or_create(&ByReason { signal: signal.name(), reason }).inc_by(items);
    }

    pub fn export_failed(&self, signal: Signal, code: &'static str) {
        self.export_failures.get_or_create(&ByCode { signal: signal.name(), code }).inc();
    }

    pub fn collect_failed(&self, source: Source) {
        self.collect_failures.get_or_create(&BySource { source: source.scope() }).inc();
    }

    pub fn spool(&self, bytes: u64, metrics: usize, logs: usize) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.spool_bytes.set(gauge(bytes));
        for (signal, count) in [(Signal::Metrics, metrics), (Signal::Logs, logs)] {
            self.spool_batches.get_or_create(&BySignal { signal: signal.name() }).set(gauge(count as u64));
        }
    }

    #[cfg(test)]
    pub fn items_dropped(&self, signal: Signal) -> u64 {
        let labels = ByReason { signal: signal.name(), reason: "spool_full" };
        self.items_dropped.get_or_create(&labels).get()
    }
}
