//! A bounded load over OTLP/gRPC: some connections, some requests in flight, for some seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use crate::bench::payload::{ITEMS, Signal, Template};
use crate::otlp;

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 32;
const MILLISECOND: u64 = 1_000_000;

/// Agents that report, each with times of its own.
pub struct Agents {
    signal: Signal,
    reports: Vec<(Template, AtomicU64)>,
}

impl Agents {
    #[must_use]
    pub fn new(signal: Signal, count: usize) -> Arc<Self> {
        let reports = (0..count).map(|agent| (Template::new(signal, agent), AtomicU64::new(0))).collect();
        Arc::new(Self { signal, reports })
    }

    /// The next request of an agent. No two have one millisecond, so that every item of every request can be counted in the
    /// store.
    fn request(&self, number: u64) -> Bytes {
        let (template, last) = &self.reports[usize::try_from(number).unwrap_or_default() % self.reports.len()];
        let now = otlp::now() / MILLISECOND;
        let next = |last: u64| Some(now.max(last + 1));
        let before = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        template.at(now.max(before + 1) * MILLISECOND)
    }

    /// Bytes of one item, with its share of everything around it.
    #[must_use]
    pub fn bytes_per_item(&self) -> f64 {
        self.reports[0].0.bytes_per_item()
    }
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub duration: Duration,
    /// Items a second of all agents together; as fast as it is acknowledged when there is none.
    pub rate: Option<f64>,
}

/// What a load did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Items in acknowledged requests.
    pub accepted: usize,
    /// Requests that were not acknowledged.
    pub refused: usize,
    /// Acknowledgement latency of each accepted request, sorted. With a rate, from the moment at which it was due.
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

/// Sends what `agents` report.
pub async fn run(url: &str, agents: &Arc<Agents>, pace: Pace) -> Outcome {
    let begun = Instant::now();
    let turns = Arc::new(Turns { begun, pace, taken: AtomicU64::new(0) });
    let mut workers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let channel = Endpoint::from_shared(url.to_owned()).unwrap().tcp_nodelay(true).connect().await.unwrap();
        for _ in 0..IN_FLIGHT / CONNECTIONS {
            workers.spawn(worker(channel.clone(), Arc::clone(agents), Arc::clone(&turns)));
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

/// Which request is next, and when.
struct Turns {
    begun: Instant,
    pace: Pace,
    taken: AtomicU64,
}

impl Turns {
    /// Waits for the next turn; its number and when it was due. None when the time is over.
    async fn next(&self) -> Option<(u64, Instant)> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let due = match self.pace.rate {
            Some(rate) => self.begun + Duration::from_secs_f64(number as f64 * ITEMS as f64 / rate),
            None => Instant::now(),
        };
        if due >= self.begun + self.pace.duration {
            return None;
        }
        tokio::time::sleep_until(due.into()).await;
        Some((number, due))
    }
}

async fn worker(channel: Channel, agents: Arc<Agents>, turns: Arc<Turns>) -> Outcome {
    let path = PathAndQuery::from_static(match agents.signal {
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    });
    let mut grpc = Grpc::new(channel);
    let mut outcome = Outcome::default();
    while let Some((number, due)) = turns.next().await {
        let request = tonic::Request::new(agents.request(number));
        if grpc.ready().await.is_err() {
            outcome.refused += 1;
            continue;
        }
        match grpc.unary(request, path.clone(), Raw).await {
            Ok(_) => {
                outcome.accepted += ITEMS;
                outcome.latencies.push(due.elapsed());
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
