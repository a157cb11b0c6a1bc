//! The way from the broker to the tables: take what has arrived, store it, answer the broker.

use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::pace::{Name, Pace};
use crate::record::Part;
use crate::store::Tables;

const SERVICE: &str = "log-writer";

/// Envelopes asked for at a time. Of what waits here, half as many again, nobody tells the broker that it is in work; each may
/// have 20,000 records, and all must be stored within the time to acknowledge.
const AT_A_TIME: usize = 32;
/// What a try may take beside its transaction.
const MARGIN: Duration = Duration::from_secs(5);

type Arriving = SelectAll<BoxStream<'static, Delivery>>;

/// Stores what the broker delivers.
pub(crate) struct Writer {
    pub(crate) tables: Tables,
    pub(crate) ready: Ready,
    pub(crate) metrics: Metrics,
    pub(crate) times: Times,
    pub(crate) most: Most,
    pub(crate) pace: Pace,
    /// How long one transaction may take.
    pub(crate) transaction: Duration,
}

/// What one transaction takes at the most, but for the last envelope.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    pub(crate) rows: usize,
    /// Of rows.
    pub(crate) bytes: usize,
}

/// What was read from an envelope.
struct Taken {
    name: Name,
    /// Committed by this process already, though not all that it was taken with.
    stored: AtomicBool,
    received_ns: u64,
    traceparent: Option<String>,
    /// Of its rows.
    bytes: usize,
    parts: Vec<Part>,
    corrections: Corrections,
}

/// Why envelopes are not stored.
#[derive(Debug, thiserror::Error)]
enum Unstored {
    #[error("Postgres refuses it: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("storing it alone takes longer than {0:?}, while others are stored")]
    TooLong(Duration),
}

impl Unstored {
    fn is_poison(&self) -> bool {
        match self {
            Self::Postgres(error) => is_poison(error),
            Self::TooLong(_) => true,
        }
    }
}

/// Why an envelope cannot be read.
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
            tracing::warn!(error = format!("{error:#}"), "cannot send the last answers to the broker");
        }
        Ok(())
    }

    /// Stores `first` and what else is there; gives the suspect that came behind and must be handled alone.
    async fn work(&self, first: Delivery, arriving: &mut Arriving, stopping: &CancellationToken) -> Option<Delivery> {
        let mut batch = Batch::default();
        let mut apart = None;
        let trial = if first.is_suspect() && Envelope::unknown(&first).is_none() {
            let trial = Trial::begin(SERVICE, std::slice::from_ref(&first)).await?;
            if let Some(taken) = self.take(&first).await {
                batch = self.alone(batch, &taken);
                batch.push(first, taken);
            }
            trial
        } else {
            apart = self.gather(first, arriving, &mut batch).await;
            Trial::begin(SERVICE, &[]).await?
        };
        batch
            .within(self.transaction + MARGIN)
            .work_off(
                stopping,
                Unstored::is_poison,
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
            // What is not known to this version is not looked into, however often it has come.
            if delivery.is_suspect() && Envelope::unknown(&delivery).is_none() {
                return Some(delivery);
            }
            if let Some(taken) = self.take(&delivery).await {
                (rows, bytes) = (rows + taken.rows(), bytes + taken.bytes);
                batch.push(delivery, taken);
            }
            let has_room = rows < self.most.rows && bytes < self.most.bytes;
            next = if has_room { arriving.next().now_or_never().flatten() } else { None };
        }
        None
    }

    /// What took too long before is given back at once where it does again, for the others' sake.
    fn alone(&self, batch: Batch<Taken>, taken: &Taken) -> Batch<Taken> {
        if self.pace.is_slow(&taken.name) { batch.held(Duration::ZERO) } else { batch }
    }

    /// Reads an envelope; answers for one that holds nothing.
    async fn take(&self, delivery: &Delivery) -> Option<Taken> {
        if delivery.tick().is_some() {
            delivery.pass().await;
            return None;
        }
        match read(delivery, self.times).await {
            Ok(taken) => {
                self.metrics.corrected(taken.corrections.nul_bytes, taken.corrections.times);
                return Some(taken);
            }
            Err(Unreadable::Envelope(unknown)) if unknown.is_unknown() => {
                if delivery.put_off(SERVICE, &unknown.to_string()).await {
                    self.metrics.count(Outcome::DeadLettered, delivery.items());
                }
            }
            Err(error) => self.set_aside(delivery, &error.to_string()).await,
        }
        None
    }

    /// Stores what is not stored yet, in as many transactions as the pace wants. One that takes too long does not keep the
    /// others from being tried.
    async fn store(&self, taken: &[Taken]) -> Result<(), Unstored> {
        let mut late = None;
        let mut left: Vec<&Taken> = taken.iter().filter(|taken| !taken.stored.load(Ordering::Relaxed)).collect();
        while !left.is_empty() {
            let rest = left.split_off(self.portion(&left));
            match self.transact(&left).await {
                Err(Unstored::Postgres(error)) if took_too_long(&error) => late = Some(error),
                other => other?,
            }
            left = rest;
        }
        late.map_or(Ok(()), |error| Err(error.into()))
    }

    /// How many of `left` the next transaction takes.
    fn portion(&self, left: &[&Taken]) -> usize {
        let (mut bytes, weight) = (0, self.pace.weight());
        let fits = left.iter().take_while(|taken| {
            bytes += taken.bytes;
            bytes <= weight
        });
        fits.count().max(1)
    }

    async fn transact(&self, taken: &[&Taken]) -> Result<(), Unstored> {
        let parts: Vec<&Part> = taken.iter().flat_map(|taken| &taken.parts).collect();
        self.metrics.delay.set(age(taken));
        let begun = Instant::now();
        match self.tables.store(&parts).instrument(span(taken)).await {
            Ok(stored) => {
                self.metrics.commit_duration.observe(begun.elapsed().as_secs_f64());
                self.metrics.count(Outcome::Stored, stored.items);
                self.metrics.count(Outcome::Duplicate, stored.duplicates);
                self.ready.up();
                self.pace.ended(taken.iter().map(|taken| &taken.name));
                taken.iter().for_each(|taken| taken.stored.store(true, Ordering::Relaxed));
                Ok(())
            }
            Err(error) => {
                if took_too_long(&error) && self.is_at_fault(taken) {
                    return Err(Unstored::TooLong(self.transaction));
                }
                if !is_poison(&error) {
                    self.ready.down("Postgres does not take rows");
                }
                Err(error.into())
            }
        }
    }

    /// A transaction of these took too long; says whether it is not Postgres that is slow.
    fn is_at_fault(&self, taken: &[&Taken]) -> bool {
        match taken {
            [alone] => self.pace.too_long_alone(&alone.name),
            several => {
                self.pace.too_long(several.iter().map(|taken| taken.bytes).sum());
                false
            }
        }
    }

    async fn settle(&self, held: &[Delivery], stored: Result<(), Unstored>) {
        match stored {
            Ok(()) => bus::ack_all(held).await,
            Err(error) => self.set_aside(&held[0], &error.to_string()).await,
        }
    }

    async fn set_aside(&self, delivery: &Delivery, reason: &str) {
        if delivery.bury(SERVICE, reason).await {
            self.metrics.count(Outcome::DeadLettered, delivery.items());
        }
    }
}

impl Taken {
    fn rows(&self) -> usize {
        self.parts.iter().map(Part::rows).sum()
    }
}

/// Ended by our clock, or by the server's.
fn took_too_long(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::TimedOut,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code == "57014"),
        _ => false,
    }
}

/// Reads an envelope, which may take a while, beside the tasks that others wait for.
async fn read(delivery: &Delivery, times: Times) -> Result<Taken, Unreadable> {
    let delivery = delivery.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let envelope = Envelope::decode(&delivery)?;
        let (parts, corrections) = envelope::parts(&envelope, times)?;
        Ok(Taken {
            name: (delivery.stream().to_owned(), delivery.stream_sequence(), delivery.published()),
            stored: AtomicBool::new(false),
            received_ns: envelope.received_unix_nano,
            traceparent: delivery.traceparent().map(str::to_owned),
            bytes: parts.iter().map(Part::bytes).sum(),
            parts,
            corrections,
        })
    });
    reading.await.unwrap_or(Err(Unreadable::Panic))
}

fn deliveries(bus: &Bus, stopping: &CancellationToken) -> Arriving {
    let streams = (0..bus.settings().shards).flat_map(|shard| [Stream::Logs(shard), Stream::Processes(shard)]);
    let options = || Options { max_messages: AT_A_TIME };
    futures::stream::select_all(
        streams.map(|stream| bus.consume(stream, SERVICE, options()).until(stopping.clone()).boxed()),
    )
}

fn span(taken: &[&Taken]) -> tracing::Span {
    let span = tracing::info_span!("store", envelopes = taken.len());
    telemetry::context::adopt_all(&span, taken.iter().filter_map(|taken| taken.traceparent.as_deref()));
    span
}

/// Seconds since the gateway took in the oldest envelope.
fn age(taken: &[&Taken]) -> f64 {
    let oldest = taken.iter().map(|taken| taken.received_ns).min().unwrap_or_default();
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    Duration::from_nanos(u64::try_from(now - i128::from(oldest)).unwrap_or_default()).as_secs_f64()
}
