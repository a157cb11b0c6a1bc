//! The way from the broker to the tables: take what has arrived, store it, answer the broker.

use std::time::{Duration, Instant};

use bus::{Batch, Bus, Delivery, Envelope, InvalidEnvelope, Options, Stream, Trial};
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use lifecycle::{CancellationToken, Ready};
use model::Times;
use store::is_poison;
use tracing::Instrument as _;

use crate::envelope::{self, Corrections, Poison};
use crate::metrics::{Metrics, Outcome};
use crate::record::Part;
use crate::store::Tables;

const SERVICE: &str = "log-writer";

type Arriving = SelectAll<BoxStream<'static, Delivery>>;

/// Stores what the broker delivers.
pub(crate) struct Writer {
    pub(crate) tables: Tables,
    pub(crate) ready: Ready,
    pub(crate) metrics: Metrics,
    pub(crate) times: Times,
    pub(crate) most: Most,
}

/// What one transaction takes at the most, but for the last envelope.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    pub(crate) rows: usize,
    /// Of unpacked envelopes.
    pub(crate) bytes: usize,
}

/// What was read from an envelope.
struct Taken {
    received_ns: u64,
    traceparent: Option<String>,
    bytes: usize,
    parts: Vec<Part>,
    corrections: Corrections,
}

/// Why an envelope is not stored.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("not an envelope: {0}")]
    Envelope(#[from] InvalidEnvelope),
    #[error(transparent)]
    Poison(#[from] Poison),
    #[error("its reader panics")]
    Panic,
}

impl Writer {
    /// Reads all shards until the process stops.
    pub(crate) async fn run(self, bus: Bus, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut arriving = deliveries(&bus, &stopping);
        let mut apart = None;
        loop {
            let first = match apart.take() {
                Some(delivery) => delivery,
                None => match arriving.next().await {
                    Some(delivery) => delivery,
                    None => break,
                },
            };
            apart = self.work(first, &mut arriving, &stopping).await;
        }
        // An acknowledgement that stays behind would make its message come again.
        if let Err(error) = bus.flush().await {
            tracing::debug!(error = format!("{error:#}"), "cannot flush the last acknowledgements");
        }
        Ok(())
    }

    /// Stores `first` and what else is there; gives the suspect that came behind and must be handled alone.
    async fn work(&self, first: Delivery, arriving: &mut Arriving, stopping: &CancellationToken) -> Option<Delivery> {
        let mut batch = Batch::default();
        let mut apart = None;
        let trial = if first.is_suspect() {
            let trial = Trial::begin(SERVICE, std::slice::from_ref(&first)).await?;
            self.take(first, &mut batch).await;
            trial
        } else {
            apart = self.gather(first, arriving, &mut batch).await;
            Trial::begin(SERVICE, &[]).await?
        };
        batch
            .work_off(
                stopping,
                is_poison,
                |taken| Box::pin(self.store(taken)),
                |held, stored| self.settle(held, stored),
            )
            .await;
        trial.end().await;
        // Held for too long: what a replica with more luck can store is left to it.
        if !self.ready.is_up() && stopping.run_until_cancelled(self.tables.pools.until_answers()).await.is_some() {
            self.ready.up();
        }
        apart
    }

    /// `first` and what else is there already, up to a transaction's worth. Nothing waits to be grouped: while one
    /// transaction runs, the next one's envelopes arrive.
    async fn gather(&self, first: Delivery, arriving: &mut Arriving, batch: &mut Batch<Taken>) -> Option<Delivery> {
        let (mut rows, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(delivery) = next {
            if delivery.is_suspect() {
                return Some(delivery);
            }
            let taken = self.take(delivery, batch).await;
            (rows, bytes) = (rows + taken.0, bytes + taken.1);
            let has_room = rows < self.most.rows && bytes < self.most.bytes;
            next = if has_room { arriving.next().now_or_never().flatten() } else { None };
        }
        None
    }

    /// Reads an envelope into `batch` and says how many rows and bytes that are; answers for one that holds nothing.
    async fn take(&self, delivery: Delivery, batch: &mut Batch<Taken>) -> (usize, usize) {
        if delivery.tick().is_some() {
            delivery.pass().await;
            return (0, 0);
        }
        match read(&delivery, self.times).await {
            Ok(taken) => {
                self.metrics.corrected(taken.corrections.nul_bytes, taken.corrections.times);
                let size = (taken.parts.iter().map(Part::rows).sum(), taken.bytes);
                batch.push(delivery, taken);
                return size;
            }
            Err(Unreadable::Envelope(unknown)) if unknown.is_unknown() => {
                if delivery.put_off(SERVICE, &unknown.to_string()).await {
                    self.metrics.count(Outcome::DeadLettered, delivery.items());
                }
            }
            Err(error) => self.set_aside(&delivery, &error.to_string()).await,
        }
        (0, 0)
    }

    async fn store(&self, taken: &[Taken]) -> Result<(), sqlx::Error> {
        let parts: Vec<&Part> = taken.iter().flat_map(|taken| &taken.parts).collect();
        self.metrics.delay.set(age(taken));
        let begun = Instant::now();
        match self.tables.store(&parts).instrument(span(taken)).await {
            Ok(stored) => {
                self.metrics.commit_duration.observe(begun.elapsed().as_secs_f64());
                self.metrics.count(Outcome::Stored, stored.items);
                self.metrics.count(Outcome::Duplicate, stored.duplicates);
                self.ready.up();
                Ok(())
            }
            Err(error) => {
                if !is_poison(&error) {
                    self.ready.down("Postgres does not take rows");
                }
                Err(error)
            }
        }
    }

    async fn settle(&self, held: &[Delivery], stored: Result<(), sqlx::Error>) {
        match stored {
            Ok(()) => bus::ack_all(held).await,
            Err(error) => self.set_aside(&held[0], &format!("Postgres refuses it: {error}")).await,
        }
    }

    async fn set_aside(&self, delivery: &Delivery, reason: &str) {
        if delivery.bury(SERVICE, reason).await {
            self.metrics.count(Outcome::DeadLettered, delivery.items());
        }
    }
}

/// Reads an envelope, which may take a while, beside the tasks that others wait for.
async fn read(delivery: &Delivery, times: Times) -> Result<Taken, Unreadable> {
    let delivery = delivery.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let envelope = Envelope::decode(&delivery)?;
        let (parts, corrections) = envelope::parts(&envelope, times)?;
        Ok(Taken {
            received_ns: envelope.received_unix_nano,
            traceparent: delivery.traceparent().map(str::to_owned),
            bytes: envelope.body.len(),
            parts,
            corrections,
        })
    });
    reading.await.unwrap_or(Err(Unreadable::Panic))
}

fn deliveries(bus: &Bus, stopping: &CancellationToken) -> Arriving {
    let streams = (0..bus.settings().shards).flat_map(|shard| [Stream::Logs(shard), Stream::Processes(shard)]);
    futures::stream::select_all(
        streams.map(|stream| bus.consume(stream, SERVICE, Options::default()).until(stopping.clone()).boxed()),
    )
}

fn span(taken: &[Taken]) -> tracing::Span {
    let span = tracing::info_span!("store", envelopes = taken.len());
    telemetry::context::adopt_all(&span, taken.iter().filter_map(|taken| taken.traceparent.as_deref()));
    span
}

/// Seconds since the gateway took in the oldest envelope.
fn age(taken: &[Taken]) -> f64 {
    let oldest = taken.iter().map(|taken| taken.received_ns).min().unwrap_or_default();
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    Duration::from_nanos(u64::try_from(now - i128::from(oldest)).unwrap_or_default()).as_secs_f64()
}
