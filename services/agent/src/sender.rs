//! Sends the requests of the spool until a gateway acknowledges them.
//!
//! Each signal has two lanes: one sends from the oldest on, the other only what is new. After an outage the backlog
//! thus goes in order, and fresh data does not wait behind it.

mod export;
pub mod verdict;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use lifecycle::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::clock;
use crate::gateway::Gateway;
use crate::metrics::{Metrics, Reason};
use crate::signal::Signal;
use crate::spool::{BatchId, End, Reaction, Spool, Spooled};
use export::Partial;
use verdict::{Verdict, code_name, verdict};

/// The metadata key of a batch's id.
const BATCH_KEY: &str = "sightline-batch";
/// The fresh lane leaves what is older to the other one.
const FRESH_MILLIS: u64 = 10_000;

/// One lane.
#[derive(Clone)]
pub struct Sender {
    pub signal: Signal,
    pub end: End,
    pub spool: Arc<Spool>,
    pub gateway: Arc<Gateway>,
    pub metrics: Metrics,
    /// How long a gateway may take to answer.
    pub timeout: Duration,
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
    /// Runs until `produced`, after which no request comes any more; sends what is there and gives up at the first
    /// failure. May be dropped at any time: what it was sending is sent again by the next run.
    ///
    /// # Errors
    /// The thread that reads the spool panicked.
    pub async fn run(self, produced: CancellationToken) -> anyhow::Result<()> {
        let mut changes = self.spool.changes();
        let mut patience = Patience::new();
        loop {
            changes.mark_unchanged();
            let Some(spooled) = self.take().await? else {
                if produced.is_cancelled() {
                    return Ok(());
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    () = produced.cancelled() => {}
                }
                continue;
            };
            let Some(channel) = self.channel(&produced).await else { return Ok(()) };
            match self.export(&spooled, channel).await {
                Ok(partial) => {
                    patience = Patience::new();
                    self.accepted(spooled, partial).await?;
                }
                Err(status) => {
                    let verdict = self.failed(&spooled, &status).await?;
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

    /// The connection, once the gateway wants to be sent something; nothing when it does not before the end. A rest or
    /// a delay that it asked for is no failure of a request.
    async fn channel(&self, produced: &CancellationToken) -> Option<Channel> {
        // After taking: another lane may learn only now that the gateway is busy.
        if let Some(busy_until) = self.gateway.busy_until() {
            tokio::select! {
                () = tokio::time::sleep_until(busy_until) => {}
                () = produced.cancelled() => return None,
            }
        }
        tokio::select! {
            biased;
            channel = self.gateway.channel() => Some(channel),
            () = produced.cancelled() => None,
        }
    }

    async fn take(&self) -> anyhow::Result<Option<Spooled>> {
        let (spool, signal, end) = (self.spool.clone(), self.signal, self.end);
        let since = match end {
            End::Oldest => 0,
            End::Newest => clock::unix_millis().saturating_sub(FRESH_MILLIS),
        };
        tokio::task::spawn_blocking(move || spool.take(signal, end, since)).await.context("read the spool")
    }

    async fn export(&self, spooled: &Spooled, channel: Channel) -> Result<Option<Partial>, Status> {
        let mut request = Request::new(spooled.payload.clone());
        let id = spooled.id.to_string();
        let id = id.parse().map_err(|_| Status::invalid_argument("a batch id is no header value"))?;
        request.metadata_mut().insert(BATCH_KEY, id);
        self.gateway.authorize(&mut request).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Status::unauthenticated(format!("{error}: {cause}"))
        })?;
        tokio::time::timeout(self.timeout, export::export(self.signal, channel, request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
    }

    async fn accepted(&self, spooled: Spooled, partial: Option<Partial>) -> anyhow::Result<()> {
        self.gateway.health.succeeded();
        let signal = [self.signal.as_str()];
        let rejected = partial.as_ref().map_or(0, |partial| partial.rejected);
        self.metrics.requests_sent.of(signal).inc();
        self.metrics.items_sent.of(signal).inc_by(spooled.items.saturating_sub(rejected));
        if let Some(partial) = partial {
            self.metrics.items_rejected.of(signal).inc_by(partial.rejected);
            tracing::warn!(
                signal = self.signal.as_str(),
                batch = %spooled.id,
                rejected = partial.rejected,
                reason = partial.message,
                "the gateway left a part of a request out"
            );
        }
        let spool = self.spool.clone();
        tokio::task::spawn_blocking(move || spool.acknowledged(&spooled.id)).await.context("remove from the spool")
    }

    async fn failed(&self, spooled: &Spooled, status: &Status) -> anyhow::Result<Verdict> {
        let verdict = verdict(status, spooled.stumbles);
        let (signal, code, reason) = (self.signal.as_str(), code_name(status.code()), status.message());
        self.metrics.export_failures.of([signal, code]).inc();
        self.gateway.health.failed(&format!("{code}: {reason}"));
        if let Verdict::Retry(Some(delay)) = verdict {
            // Agents that were refused at the same moment should not come back at the same moment.
            self.gateway.busy(delay.mul_f64(rand::random_range(1.0..1.25)));
        }
        if verdict == Verdict::Refused {
            tracing::error!(signal, batch = %spooled.id, items = spooled.items, code, reason, "the gateway refuses a request for good, it is dropped");
            self.metrics.items_dropped.of([signal, Reason::Refused.as_str()]).inc_by(spooled.items);
            self.done(spooled.id.clone()).await?;
            return Ok(verdict);
        }
        // An outage is said once for a request, not with every attempt.
        if spooled.failures == 0 {
            tracing::warn!(signal, batch = %spooled.id, code, reason, "cannot send a request, keeping it");
        } else {
            tracing::debug!(signal, batch = %spooled.id, code, reason, failures = spooled.failures, "cannot send a request yet");
        }
        let stumbled = verdict == Verdict::Stumbled;
        self.spool.give_back(&spooled.id, if stumbled { Reaction::Stumbled } else { Reaction::Failed });
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
        tokio::task::spawn_blocking(move || spool.done(&id)).await.context("remove from the spool")
    }
}
