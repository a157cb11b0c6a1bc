//! The way from the broker to the tables: take what has arrived, store it, answer the broker.

use std::time::{Duration, Instant};

use bus::{Bus, Delivery, Envelope, Options, Stream};
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use lifecycle::{CancellationToken, Ready};
use store::Pool;
use tracing::Instrument as _;

use crate::envelope::{self, Believed, Corrections};
use crate::metrics::{Correction, Metrics, Outcome};
use crate::record::Part;
use crate::store::{self as tables};

const SERVICE: &str = "log-writer";
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Well below the time after which the broker delivers a message to somebody else.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// Stores what the broker delivers.
pub(crate) struct Writer {
    pub(crate) pool: Pool,
    pub(crate) ready: Ready,
    pub(crate) metrics: Metrics,
    pub(crate) believed: Believed,
    pub(crate) rows: usize,
    pub(crate) batch_check: bool,
}

/// An envelope that was read.
struct Taken {
    delivery: Delivery,
    received_ns: u64,
    parts: Vec<Part>,
}

/// The process is stopping; what was not acknowledged will be delivered again.
struct Stopped;

impl Writer {
    /// Reads all shards until the process stops.
    pub(crate) async fn run(self, bus: Bus, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut arriving = deliveries(&bus);
        loop {
            let first = tokio::select! {
                () = stopping.cancelled() => break,
                first = arriving.next() => first,
            };
            let Some(first) = first else { anyhow::bail!("the broker's streams ended") };
            let taken = self.take(first, &mut arriving).await;
            if self.settle(taken, &stopping).await.is_err() {
                break;
            }
        }
        // An acknowledgement that stays behind would make its message come again.
        if let Err(error) = bus.flush().await {
            tracing::debug!(error = format!("{error:#}"), "cannot flush the last acknowledgements");
        }
        Ok(())
    }

    /// `first` and what else is there already, up to a transaction's worth. Nothing waits to be grouped: while one
    /// transaction runs, the next one's envelopes arrive.
    async fn take(&self, first: Delivery, arriving: &mut SelectAll<BoxStream<'static, Delivery>>) -> Vec<Taken> {
        let mut taken: Vec<Taken> = Vec::new();
        let mut rows = 0;
        let mut next = Some(first);
        while let Some(delivery) = next {
            if let Some(envelope) = self.read(delivery).await {
                rows += envelope.parts.iter().map(Part::rows).sum::<usize>();
                taken.push(envelope);
            }
            next = if rows < self.rows { arriving.next().now_or_never().flatten() } else { None };
        }
        taken
    }

    /// Reads an envelope; one that can never be read becomes a dead letter.
    async fn read(&self, delivery: Delivery) -> Option<Taken> {
        let mut corrections = Corrections::default();
        let read = Envelope::decode(&delivery).map_err(anyhow::Error::from).and_then(|envelope| {
            let received_ns = envelope.received_unix_nano;
            let parts = envelope::parts(
                envelope.schema,
                &envelope.tenant,
                received_ns,
                &envelope.body,
                self.believed,
                &mut corrections,
            )?;
            Ok((received_ns, parts))
        });
        self.metrics.corrected(Correction::NulByte, corrections.nul_bytes);
        self.metrics.corrected(Correction::Time, corrections.times);
        match read {
            Ok((received_ns, parts)) => Some(Taken { delivery, received_ns, parts }),
            Err(error) => {
                self.set_aside(&delivery, &format!("{error:#}")).await;
                None
            }
        }
    }

    /// Stores everything that was taken and answers the broker; envelopes that Postgres refuses are found one by one.
    async fn settle(&self, mut taken: Vec<Taken>, stopping: &CancellationToken) -> Result<(), Stopped> {
        let mut groups = vec![std::mem::take(&mut taken)];
        while let Some(group) = groups.pop() {
            if group.is_empty() {
                continue;
            }
            match self.store_or_wait(&group, stopping).instrument(span(&group)).await? {
                Ok(()) => {
                    for envelope in &group {
                        envelope.delivery.ack().await;
                    }
                }
                Err(error) if group.len() == 1 => {
                    self.set_aside(&group[0].delivery, &format!("Postgres refuses it: {error}")).await;
                }
                Err(error) => {
                    tracing::warn!(%error, envelopes = group.len(), "a transaction was refused; looking for the envelope");
                    groups.extend(group.into_iter().map(|envelope| vec![envelope]));
                }
            }
        }
        Ok(())
    }

    /// Stores a group; while Postgres is away, waits for it and keeps the broker from delivering to somebody else.
    async fn store_or_wait(
        &self,
        group: &[Taken],
        stopping: &CancellationToken,
    ) -> Result<Result<(), sqlx::Error>, Stopped> {
        let parts: Vec<&Part> = group.iter().flat_map(|envelope| &envelope.parts).collect();
        let mut pause = Duration::from_millis(100);
        let mut last_progress = Instant::now();
        loop {
            let begun = Instant::now();
            match tables::store(&self.pool, &parts, self.batch_check).await {
                Ok(stored) => {
                    self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                    self.metrics.count(Outcome::Stored, stored.items);
                    self.metrics.count(Outcome::Duplicate, stored.duplicates);
                    self.metrics.oldest_seconds.set(age(group));
                    self.ready.up();
                    return Ok(Ok(()));
                }
                Err(error) if !store::is_away(&error) => return Ok(Err(error)),
                Err(error) => {
                    self.ready.down("Postgres does not take rows");
                    tracing::debug!(%error, "cannot store; trying again");
                }
            }
            if last_progress.elapsed() > PROGRESS_EVERY {
                last_progress = Instant::now();
                for envelope in group {
                    envelope.delivery.progress().await;
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return Err(Stopped),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn set_aside(&self, delivery: &Delivery, reason: &str) {
        let items = delivery.header("Sl-Items").and_then(|items| items.parse().ok()).unwrap_or(1);
        match delivery.dead(SERVICE, reason).await {
            Ok(()) => self.metrics.count(Outcome::DeadLettered, items),
            Err(error) => {
                tracing::warn!(%error, "cannot keep a dead letter; the message will come again");
                delivery.nak(Duration::from_secs(5)).await;
            }
        }
    }
}

fn deliveries(bus: &Bus) -> SelectAll<BoxStream<'static, Delivery>> {
    let streams = (0..bus.settings().shards).flat_map(|shard| [Stream::Logs(shard), Stream::Processes(shard)]);
    futures::stream::select_all(
        streams.map(|stream| bus.consume(stream, SERVICE, Options::default()).into_stream().boxed()),
    )
}

fn span(group: &[Taken]) -> tracing::Span {
    let span = tracing::info_span!("store", envelopes = group.len());
    telemetry::context::adopt_all(&span, group.iter().filter_map(|envelope| envelope.delivery.traceparent()));
    span
}

/// Seconds since the gateway took in the oldest envelope.
fn age(group: &[Taken]) -> f64 {
    let oldest = group.iter().map(|envelope| envelope.received_ns).min().unwrap_or_default();
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    Duration::from_nanos(u64::try_from(now - i128::from(oldest)).unwrap_or_default()).as_secs_f64()
}
