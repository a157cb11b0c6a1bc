//! The way from the broker to the tables: take what has arrived, store it, answer the broker.

use std::time::{Duration, Instant};

use bus::{Batch, Bus, Delivery, Envelope, Options, Stream};
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use lifecycle::{CancellationToken, Ready};
use store::{Pool, is_poison};
use tracing::Instrument as _;

use crate::envelope::{self, Believed, Corrections};
use crate::metrics::{Correction, Metrics, Outcome};
use crate::record::Part;
use crate::store::{self as tables};

const SERVICE: &str = "log-writer";

/// Stores what the broker delivers.
pub(crate) struct Writer {
    pub(crate) pool: Pool,
    pub(crate) ready: Ready,
    pub(crate) metrics: Metrics,
    pub(crate) believed: Believed,
    pub(crate) rows: usize,
    pub(crate) batch_check: bool,
}

/// What was read from an envelope.
struct Taken {
    received_ns: u64,
    traceparent: Option<String>,
    parts: Vec<Part>,
}

impl Writer {
    /// Reads all shards until the process stops.
    pub(crate) async fn run(self, bus: Bus, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut arriving = deliveries(&bus, &stopping);
        while let Some(first) = arriving.next().await {
            let batch = self.take(first, &mut arriving).await;
            batch
                .work_off(&stopping, is_poison, |taken| self.store(taken), |held, stored| self.settle(held, stored))
                .await;
        }
        // An acknowledgement that stays behind would make its message come again.
        if let Err(error) = bus.flush().await {
            tracing::debug!(error = format!("{error:#}"), "cannot flush the last acknowledgements");
        }
        Ok(())
    }

    /// `first` and what else is there already, up to a transaction's worth. Nothing waits to be grouped: while one
    /// transaction runs, the next one's envelopes arrive.
    async fn take(&self, first: Delivery, arriving: &mut SelectAll<BoxStream<'static, Delivery>>) -> Batch<Taken> {
        let mut batch = Batch::default();
        let mut rows = 0;
        let mut next = Some(first);
        while let Some(delivery) = next {
            if let Some(taken) = self.read(&delivery).await {
                rows += taken.parts.iter().map(Part::rows).sum::<usize>();
                batch.push(delivery, taken);
            }
            next = if rows < self.rows { arriving.next().now_or_never().flatten() } else { None };
        }
        batch
    }

    /// Reads an envelope; one that can never be read becomes a dead letter.
    async fn read(&self, delivery: &Delivery) -> Option<Taken> {
        let mut corrections = Corrections::default();
        let read = Envelope::decode(delivery).map_err(anyhow::Error::from).and_then(|envelope| {
            let received_ns = envelope.received_unix_nano;
            let parts = envelope::parts(
                envelope.schema,
                &envelope.tenant,
                received_ns,
                &envelope.body,
                self.believed,
                &mut corrections,
            )?;
            Ok(Taken { received_ns, traceparent: delivery.traceparent().map(str::to_owned), parts })
        });
        self.metrics.corrected(Correction::NulByte, corrections.nul_bytes);
        self.metrics.corrected(Correction::Time, corrections.times);
        match read {
            Ok(taken) => Some(taken),
            Err(error) => {
                self.set_aside(delivery, &format!("{error:#}")).await;
                None
            }
        }
    }

    async fn store(&self, taken: &[Taken]) -> Result<(), sqlx::Error> {
        let parts: Vec<&Part> = taken.iter().flat_map(|taken| &taken.parts).collect();
        let begun = Instant::now();
        match tables::store(&self.pool, &parts, self.batch_check).instrument(span(taken)).await {
            Ok(stored) => {
                self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                self.metrics.count(Outcome::Stored, stored.items);
                self.metrics.count(Outcome::Duplicate, stored.duplicates);
                self.metrics.oldest_seconds.set(age(taken));
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
            let items = delivery.header("Sl-Items").and_then(|items| items.parse().ok()).unwrap_or(1);
            self.metrics.count(Outcome::DeadLettered, items);
        }
    }
}

fn deliveries(bus: &Bus, stopping: &CancellationToken) -> SelectAll<BoxStream<'static, Delivery>> {
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
