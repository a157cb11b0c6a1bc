//! Every metric of the ingest-gateway.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Signal {
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
    /// Process snapshots.
    Processes,
}

/// How it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Protocol {
    OtlpGrpc,
    OtlpHttp,
    AgentStream,
}

/// What the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// The broker has it.
    Accepted,
    /// It can never be taken as it is.
    Invalid,
    /// Nobody we know sent it, or somebody who may not.
    Denied,
    /// There was no room for it.
    Overloaded,
    /// The broker or auth is away.
    Unavailable,
}

/// What became of a sighting or a round of heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Aside {
    Done,
    Failed,
    /// The queue was full.
    Skipped,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    signal: Signal,
    protocol: Protocol,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignalLabels {
    signal: Signal,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    signal: Signal,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AsideLabels {
    outcome: Aside,
}

/// Clones share the numbers.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    items: Family<SignalLabels, Counter>,
    bytes: Family<SignalLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    envelopes: Family<SignalLabels, Counter>,
    envelope_bytes: Family<SignalLabels, Counter>,
    publish_failures: Family<SignalLabels, Counter>,
    publish_seconds: Histogram,
    sightings: Family<AsideLabels, Counter>,
    heartbeats: Family<AsideLabels, Counter>,
    pub(crate) in_flight_bytes: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) command_responses: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            items: Family::default(),
            bytes: Family::default(),
            refused: Family::default(),
            envelopes: Family::default(),
            envelope_bytes: Family::default(),
            publish_failures: Family::default(),
            publish_seconds: Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 5.0]),
            sightings: Family::default(),
            heartbeats: Family::default(),
            in_flight_bytes: Gauge::default(),
            streams: Gauge::default(),
            command_responses: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("sightline_ingest_gateway");
        registry.register("requests", "Messages, by what the client was told", metrics.requests.clone());
        registry.register("items_accepted", "Items that the broker has acknowledged", metrics.items.clone());
        registry.register("received_bytes", "Bytes of messages, unpacked", metrics.bytes.clone());
        registry.register("items_refused", "Items refused within messages that were taken", metrics.refused.clone());
        registry.register("envelopes_published", "Envelopes that the broker has", metrics.envelopes.clone());
        registry.register("envelope_bytes", "Bytes of envelopes, unpacked", metrics.envelope_bytes.clone());
        registry.register(
            "publish_failures",
            "Envelopes not known to be with the broker",
            metrics.publish_failures.clone(),
        );
        registry.register(
            "publish_duration_seconds",
            "From handing an envelope to the broker until its acknowledgement",
            metrics.publish_seconds.clone(),
        );
        registry.register("resource_sightings", "Resources told to the registry", metrics.sightings.clone());
        registry.register("heartbeat_rounds", "Rounds of heartbeats written to Redis", metrics.heartbeats.clone());
        registry.register(
            "in_flight_bytes",
            "Bytes of messages that are read or wait for the broker",
            metrics.in_flight_bytes.clone(),
        );
        registry.register("agent_streams_open", "Streams of agents that are open", metrics.streams.clone());
        registry.register(
            "command_responses",
            "Answers of agents to commands that came in",
            metrics.command_responses.clone(),
        );
        metrics
    }

    pub(crate) fn request(&self, signal: Signal, protocol: Protocol, outcome: Outcome) {
        self.requests.get_or_create(&RequestLabels { signal, protocol, outcome }).inc();
    }

    pub(crate) fn received(&self, signal: Signal, bytes: usize) {
        self.bytes.get_or_create(&SignalLabels { signal }).inc_by(bytes as u64);
    }

    pub(crate) fn accepted(&self, signal: Signal, items: u64) {
        self.items.get_or_create(&SignalLabels { signal }).inc_by(items);
    }

    pub(crate) fn refused(&self, signal: Signal, refusals: &otlp::Refusals) {
        for (reason, count) in refusals.iter() {
            self.refused.get_or_create(&RefusedLabels { signal, reason: reason.as_str() }).inc_by(count);
        }
    }

    pub(crate) fn published(&self, signal: Signal, bytes: usize, took: Duration) {
        self.envelopes.get_or_create(&SignalLabels { signal }).inc();
        self.envelope_bytes.get_or_create(&SignalLabels { signal }).inc_by(bytes as u64);
        self.publish_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn not_published(&self, signal: Signal) {
        self.publish_failures.get_or_create(&SignalLabels { signal }).inc();
    }

    pub(crate) fn sighting(&self, outcome: Aside) {
        self.sightings.get_or_create(&AsideLabels { outcome }).inc();
    }

    pub(crate) fn heartbeat(&self, outcome: Aside) {
        self.heartbeats.get_or_create(&AsideLabels { outcome }).inc();
    }
}
