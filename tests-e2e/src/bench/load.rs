//! A bounded load over OTLP/gRPC: some connections, some requests in flight, for some seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use crate::bench::payload::{AGENTS, ITEMS, Signal, Template};
use crate::otlp;

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 32;

/// What a load did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Items in acknowledged requests.
    pub accepted: usize,
    /// Requests that were refused and may be sent again.
    pub refused: usize,
    /// Acknowledgement latency of each accepted request, sorted.
    pub latencies: Vec<Duration>,
    pub seconds: f64,
}

impl Outcome {
    /// The latency below which this many percent of the acknowledgements lie.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = self.latencies.len() * percent / 100;
        self.latencies.get(at.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Sends as fast as it is acknowledged, for `duration`.
pub async fn run(url: &str, signal: Signal, duration: Duration) -> Outcome {
    let templates: Arc<Vec<Template>> = Arc::new((0..AGENTS).map(|agent| Template::new(signal, agent)).collect());
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let channel = Endpoint::from_shared(url.to_owned()).unwrap().tcp_nodelay(true).connect().await.unwrap();
        for lane in 0..IN_FLIGHT / CONNECTIONS {
            let templates = Arc::clone(&templates);
            let first = connection * (IN_FLIGHT / CONNECTIONS) + lane;
            workers.spawn(worker(channel.clone(), signal, templates, first, begun + duration));
        }
    }
    let mut outcome = Outcome::default();
    while let Some(worker) = workers.join_next().await {
        let part = worker.unwrap();
        outcome.accepted += part.accepted;
        outcome.refused += part.refused;
        outcome.latencies.extend(part.latencies);
    }
    outcome.latencies.sort_unstable();
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome
}

async fn worker(
    channel: Channel,
    signal: Signal,
    templates: Arc<Vec<Template>>,
    first: usize,
    until: Instant,
) -> Outcome {
    let path = PathAndQuery::from_static(match signal {
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    });
    let mut grpc = Grpc::new(channel);
    let mut outcome = Outcome::default();
    let mut number = first;
    while Instant::now() < until {
        let body = templates[number % AGENTS].at(otlp::now());
        number += IN_FLIGHT;
        let begun = Instant::now();
        if grpc.ready().await.is_err() {
            outcome.refused += 1;
            continue;
        }
        match grpc.unary(tonic::Request::new(body), path.clone(), Raw).await {
            Ok(_) => {
                outcome.accepted += ITEMS;
                outcome.latencies.push(begun.elapsed());
            }
            Err(_) => {
                outcome.refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    outcome
}

/// Bytes in, bytes out: encoding must not be part of what is measured.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
