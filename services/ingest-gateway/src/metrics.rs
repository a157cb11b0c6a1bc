//! Every metric of the ingest-gateway.

use std::time::Duration;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
    /// Process snapshots.
    Processes,
}

impl Signal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Processes => "processes",
        }
    }
}

/// How it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    OtlpGrpc,
    OtlpHttp,
    AgentStream,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::OtlpGrpc => "otlp_grpc",
            Self::OtlpHttp => "otlp_http",
            Self::AgentStream => "agent_stream",
        }
    }
}

/// What the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of a sighting or a round of heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    Done,
    Failed,
    /// The queue was full.
    Skipped,
}

impl Aside {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl From<otlp::Signal> for Signal {
    fn from(signal: otlp::Signal) -> Self {
        match signal {
            otlp::Signal::Metrics => Self::Metrics,
            otlp::Signal::Logs => Self::Logs,
        }
    }
}

telemetry::metrics! {
    /// Clones share the numbers.
    pub struct Metrics in "sightline_ingest_gateway" {
        /// Messages, by what the client was told
        pub(crate) requests: Counter by [signal, protocol, outcome],
        /// Requests that were refused whole, by why
        pub(crate) requests_refused: Counter by [reason],
        /// Items that the broker has acknowledged
        pub(crate) items_accepted: Counter by [signal],
        /// Items refused within messages that were taken
        pub(crate) items_refused: Counter by [signal, reason],
        /// Fields in JSON that OTLP does not know, which were passed over
        pub(crate) unknown_fields: Counter by [signal],
        /// Bytes of messages, unpacked
        pub(crate) received_bytes: Counter by [signal],
        /// Envelopes that the broker has
        pub(crate) envelopes_published: Counter by [signal],
        /// Bytes of envelopes, unpacked
        pub(crate) envelope_bytes: Counter by [signal],
        /// Envelopes not known to be with the broker
        pub(crate) publish_failures: Counter by [signal],
        /// From handing an envelope to the broker until its acknowledgement
        pub(crate) publish_duration [Seconds]: Histogram = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 5.0],
        /// Resources told to the registry
        pub(crate) resource_sightings: Counter by [outcome],
        /// Rounds of heartbeats written to Redis
        pub(crate) heartbeat_rounds: Counter by [outcome],
        /// Signs of life that were left out, since too many resources were seen at once
        pub(crate) heartbeats_left_out: Counter,
        /// Bytes of messages that are read or wait for the broker, and of what is made of them
        pub(crate) in_flight_bytes: Gauge,
        /// Streams of agents that are open
        pub(crate) agent_streams_open: Gauge,
        /// Connections of agents over which no process snapshot has come for SIGHTLINE_PROCESS_SILENCE
        pub(crate) agents_without_snapshots: Gauge,
        /// Snapshots that were answered as lost, since they could not be made safe in time
        pub(crate) snapshots_lost: Counter,
        /// Answers of agents to commands that came in
        pub(crate) command_responses: Counter,
    }
}

impl Metrics {
    pub(crate) fn request(&self, signal: Signal, protocol: Protocol, outcome: Outcome) {
        self.requests.of([signal.as_str(), protocol.as_str(), outcome.as_str()]).inc();
    }

    pub(crate) fn received(&self, signal: Signal, bytes: usize) {
        self.received_bytes.of([signal.as_str()]).inc_by(bytes as u64);
    }

    pub(crate) fn accepted(&self, signal: Signal, items: u64) {
        self.items_accepted.of([signal.as_str()]).inc_by(items);
    }

    pub(crate) fn refused(&self, signal: Signal, refusals: &otlp::Refusals) {
        for (reason, count) in refusals.iter() {
            self.items_refused.of([signal.as_str(), reason.as_str()]).inc_by(count);
        }
    }

    pub(crate) fn published(&self, signal: Signal, bytes: usize, took: Duration) {
        self.envelopes_published.of([signal.as_str()]).inc();
        self.envelope_bytes.of([signal.as_str()]).inc_by(bytes as u64);
        self.publish_duration.observe(took.as_secs_f64());
    }

    pub(crate) fn not_published(&self, signal: Signal) {
        self.publish_failures.of([signal.as_str()]).inc();
    }

    pub(crate) fn sighting(&self, outcome: Aside) {
        self.resource_sightings.of([outcome.as_str()]).inc();
    }

    pub(crate) fn heartbeat(&self, outcome: Aside) {
        self.heartbeat_rounds.of([outcome.as_str()]).inc();
    }
}
