//! Sends the batches of the spool until a gateway acknowledges them.
//!
//! Each signal has two lanes: one sends from the oldest on, the other only what is new. After an outage the backlog
//! thus goes in order, and fresh data does not wait behind it.

pub mod verdict;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use lifecycle::CancellationToken;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Status};

use crate::clock;
use crate::gateway::Gateway;
use crate::metrics::{Metrics, Reason};
use crate::spool::{Batch, BatchId, End, Signal, Spool};
use verdict::{Verdict, code_name, verdict};

/// The metadata key of a batch's id.
const BATCH_KEY: &str = "sightline-batch";
const EXPORT_TIMEOUT: Duration = Duration::from_secs(15);
/// The fresh lane leaves what is older to the other one.
const FRESH_MILLIS: u64 = 10_000;

/// One lane.
#[derive(Clone)]
pub struct Sender {
    pub signal: Signal,
    pub end: End,
    pub spool: Arc<Spool>,
    pub gateway: Arc<Gateway>,
    pub metrics: Arc<Metrics>,
}

/// What a gateway left out of a batch that it took.
struct Partial {
    rejected: u64,
    message: String,
}

/// Delays between attempts; a new one begins after each success.
struct Patience {
    retry: ExponentialBackoff,
    hold: ExponentialBackoff,
}

impl Patience {
    fn new() -> Self {
        let delays = |shortest, longest| {
            ExponentialBuilder::new()
                .with_min_delay(shortest)
                .with_max_delay(longest)
                .with_jitter()
                .without_max_times()
                .build()
        };
        Self {
            retry: delays(Duration::from_millis(200), Duration::from_secs(5)),
            hold: delays(Duration::from_secs(1), Duration::from_secs(30)),
        }
    }
}

impl Sender {
    /// Runs until `produced`, after which no batch comes any more; sends what is there and gives up at the first
    /// failure. May be dropped at any time: what it was sending is sent again by the next run.
    ///
    /// # Errors
    /// The thread that reads the spool panicked.
    pub async fn run(self, produced: CancellationToken) -> anyhow::Result<()> {
        let mut changes = self.spool.changes();
        let mut patience = Patience::new();
        loop {
            changes.mark_unchanged();
            let Some(batch) = self.take().await? else {
                if produced.is_cancelled() {
                    return Ok(());
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    () = produced.cancelled() => {}
                }
                continue;
            };
            // After taking: another lane may learn only now that the gateway is busy.
            if let Some(busy_until) = self.gateway.busy_until() {
                tokio::select! {
                    () = tokio::time::sleep_until(busy_until) => {}
                    () = produced.cancelled() => return Ok(()),
                }
            }
            match self.export(&batch).await {
                Ok(partial) => {
                    patience = Patience::new();
                    self.accepted(batch, partial).await?;
                }
                Err(status) => {
                    let verdict = self.failed(&batch, &status).await?;
                    if produced.is_cancelled() && verdict != Verdict::Refused {
                        return Ok(());
                    }
                    tokio::select! {
                        () = self.wait(verdict, &mut patience) => {}
                        () = produced.cancelled() => {}
                    }
                }
            }
        }
    }

    async fn take(&self) -> anyhow::Result<Option<Batch>> {
        let (spool, signal, end) = (self.spool.clone(), self.signal, self.end);
        let since = match end {
            End::Oldest => 0,
            End::Newest => clock::unix_millis().saturating_sub(FRESH_MILLIS),
        };
        tokio::task::spawn_blocking(move || spool.take(signal, end, since)).await.context("read the spool")
    }

    async fn export(&self, batch: &Batch) -> Result<Option<Partial>, Status> {
        let exported = async {
            match self.signal {
                Signal::Metrics => self.export_metrics(batch).await,
                Signal::Logs => self.export_logs(batch).await,
            }
        };
        tokio::time::timeout(EXPORT_TIMEOUT, exported)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
    }

    async fn export_metrics(&self, batch: &Batch) -> Result<Option<Partial>, Status> {
        let request = self.request::<ExportMetricsServiceRequest>(batch)?;
        let mut client = MetricsServiceClient::new(self.gateway.channel().await)
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip);
        let partial = client.export(request).await?.into_inner().partial_success;
        Ok(partial.and_then(|partial| Partial::of(partial.rejected_data_points, partial.error_message)))
    }

    async fn export_logs(&self, batch: &Batch) -> Result<Option<Partial>, Status> {
        let request = self.request::<ExportLogsServiceRequest>(batch)?;
        let mut client = LogsServiceClient::new(self.gateway.channel().await)
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip);
        let partial = client.export(request).await?.into_inner().partial_success;
        Ok(partial.and_then(|partial| Partial::of(partial.rejected_log_records, partial.error_message)))
    }

    fn request<M: Message + Default>(&self, batch: &Batch) -> Result<Request<M>, Status> {
        let message = M::decode(batch.payload.as_slice())
            .map_err(|error| Status::invalid_argument(format!("the spooled batch is damaged: {error}")))?;
        let mut request = Request::new(message);
        let id = batch.id.to_string().parse().map_err(|_| Status::invalid_argument("a batch id is no header value"))?;
        request.metadata_mut().insert(BATCH_KEY, id);
        self.gateway.authorize(&mut request).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Status::unauthenticated(format!("{error}: {cause}"))
        })?;
        Ok(request)
    }

    async fn accepted(&self, batch: Batch, partial: Option<Partial>) -> anyhow::Result<()> {
        self.gateway.health.succeeded();
        let rejected = partial.as_ref().map_or(0, |partial| partial.rejected);
        self.metrics.sent(self.signal, batch.items.saturating_sub(rejected));
        if let Some(partial) = partial {
            self.metrics.rejected(self.signal, partial.rejected);
            tracing::warn!(
                signal = self.signal.name(),
                batch = %batch.id,
                rejected = partial.rejected,
                reason = partial.message,
                "the gateway left a part of a batch out"
            );
        }
        self.done(batch.id).await
    }

    async fn failed(&self, batch: &Batch, status: &Status) -> anyhow::Result<Verdict> {
        let verdict = verdict(status, batch.stumbles);
        let (signal, code, reason) = (self.signal.name(), code_name(status.code()), status.message());
        self.metrics.export_failed(self.signal, code);
        self.gateway.health.failed(&format!("{code}: {reason}"));
        if let Verdict::Retry(Some(delay)) = verdict {
            // Agents that were refused at the same moment should not come back at the same moment.
            self.gateway.busy(delay.mul_f64(rand::random_range(1.0..1.25)));
        }
        match verdict {
            Verdict::Refused => {
                tracing::error!(signal, batch = %batch.id, items = batch.items, code, reason, "the gateway refuses a batch for good, it is dropped");
                self.metrics.dropped(self.signal, Reason::Refused, batch.items);
                self.done(batch.id.clone()).await?;
            }
            // An outage is said once for a batch, not with every attempt.
            _ if batch.failures == 0 => {
                tracing::warn!(signal, batch = %batch.id, code, reason, "cannot send a batch, keeping it");
                self.spool.give_back(&batch.id, verdict == Verdict::Stumbled);
            }
            _ => {
                tracing::debug!(signal, batch = %batch.id, code, reason, failures = batch.failures, "cannot send a batch yet");
                self.spool.give_back(&batch.id, verdict == Verdict::Stumbled);
            }
        }
        Ok(verdict)
    }

    async fn wait(&self, verdict: Verdict, patience: &mut Patience) {
        match verdict {
            Verdict::Refused => {}
            // Seen to by every lane before it sends.
            Verdict::Retry(Some(_)) => {}
            Verdict::Retry(None) | Verdict::Stumbled => {
                let mut successes = self.gateway.health.successes();
                tokio::select! {
                    () = tokio::time::sleep(patience.retry.next().unwrap_or_default()) => {}
                    _ = successes.changed() => {}
                }
            }
            Verdict::Hold => self.gateway.wait_for_credential(patience.hold.next().unwrap_or_default()).await,
        }
    }

    async fn done(&self, id: BatchId) -> anyhow::Result<()> {
        let spool = self.spool.clone();
        tokio::task::spawn_blocking(move || spool.done(&id)).await.context("remove a batch from the spool")
    }
}

impl Partial {
    /// A server may send an empty one where it should send none.
    fn of(rejected: i64, message: String) -> Option<Self> {
        let rejected = u64::try_from(rejected).unwrap_or(0);
        (rejected > 0 || !message.is_empty()).then_some(Self { rejected, message })
    }
}
