//! The loop that groups envelopes, writes them, and answers the broker when the store has answered.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bus::{Bus, Delivery, in_work};
use bytes::Bytes;
use lifecycle::{CancellationToken, Ready};
use series::Reader;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{Instrument as _, info, info_span, warn};

use crate::batch::{Batch, Unit};
use crate::intake;
use crate::metrics::{Metrics, Outcome};
use crate::remote_write;
use crate::store::{Store, WriteError};

/// How long the first envelope of a batch waits for others.
const LINGER: Duration = Duration::from_millis(50);
/// Where there is a backlog, for how long a batch grows.
const LONGEST_GROWTH: Duration = Duration::from_millis(500);
/// The broker delivers again after 30 s without a word (bus::Stream, the writers' acknowledgement wait).
const PROGRESS_EVERY: Duration = Duration::from_secs(8);
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Given back at once, an envelope could be sent to a pull of this process that is just being closed, and be lost for the
/// half minute until the broker notices.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(1);
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Writes what `intake` pulls.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) bus: Bus,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) ready: Ready,
    pub(crate) stopping: CancellationToken,
}

/// How an attempt to write ended.
enum Answer {
    Stored,
    Refused(String),
    /// The process stops and the store is away.
    GivenUp,
}

impl Writer {
    /// Writes until the pullers are gone, then finishes what is in flight.
    pub(crate) async fn run(self, mut envelopes: Receiver<Delivery>) -> anyhow::Result<()> {
        self.ready.up();
        let mut reader = Reader::new(intake::REMEMBERED);
        let mut on_its_way = JoinSet::new();
        while let Some(batch) = self.collect(&mut envelopes, &mut reader).await {
            // While the store works on one batch, the next one grows. A panic is a mistake of ours that must be seen.
            let held = batch.units.iter().map(|unit| &unit.delivery);
            in_work(held, PROGRESS_EVERY, on_its_way.join_next()).await.transpose()?;
            let writer = self.clone();
            on_its_way.spawn(async move { writer.deliver(batch).await });
        }
        on_its_way.join_next().await.transpose()?;
        flush(&self.bus).await;
        Ok(())
    }

    /// The next batch; `None` at the end.
    async fn collect(&self, envelopes: &mut Receiver<Delivery>, reader: &mut Reader) -> Option<Batch> {
        let mut batch = Batch::default();
        while batch.units.is_empty() {
            match timeout(IDLE_AFTER, envelopes.recv()).await {
                Ok(delivery) => self.take(reader, delivery?, &mut batch).await,
                Err(_) => self.metrics.idle(),
            }
        }
        let begun = Instant::now();
        while !batch.is_enough() && begun.elapsed() < LONGEST_GROWTH {
            match timeout(LINGER.saturating_sub(begun.elapsed()), envelopes.recv()).await {
                Ok(Some(delivery)) => self.take(reader, delivery, &mut batch).await,
                Ok(None) | Err(_) => break,
            }
        }
        Some(batch)
    }

    async fn take(&self, reader: &mut Reader, delivery: Delivery, batch: &mut Batch) {
        match intake::read(reader, &delivery, &mut batch.samples) {
            Ok(summary) => {
                self.metrics.read(summary.tally);
                batch.units.push(Unit { delivery, summary });
            }
            Err(unreadable) => self.bury(&delivery, &unreadable.to_string()).await,
        }
    }

    /// Stores a batch whole, or all of it but the envelopes that the store refuses.
    async fn deliver(&self, batch: Batch) {
        let mut left = vec![batch];
        while let Some(batch) = left.pop() {
            match self.write(&batch, &left).instrument(span(&batch)).await {
                Answer::Stored => {
                    // Counted first: whoever sees the acknowledgement may look at the counter next.
                    self.metrics.stored(&batch);
                    for unit in &batch.units {
                        unit.delivery.ack().await;
                    }
                }
                Answer::Refused(reason) => match batch.units.as_slice() {
                    [unit] => self.bury(&unit.delivery, &reason).await,
                    _ => left.extend(halves(batch)),
                },
                Answer::GivenUp => {
                    left.push(batch);
                    return self.give_back(&left).await;
                }
            }
        }
    }

    /// Writes until the store says yes or no; `waiting` is held meanwhile.
    async fn write(&self, batch: &Batch, waiting: &[Batch]) -> Answer {
        let bodies = match remote_write::bodies(&batch.samples) {
            Ok(bodies) => bodies,
            Err(error) => return Answer::Refused(format!("the samples cannot be packed: {error}")),
        };
        let held = waiting.iter().chain([batch]).flat_map(|batch| &batch.units).map(|unit| &unit.delivery);
        in_work(held, PROGRESS_EVERY, self.write_all(bodies)).await
    }

    async fn write_all(&self, bodies: Vec<Bytes>) -> Answer {
        let mut pauses = pauses();
        for body in bodies {
            while let Some(away) = match self.write_once(body.clone()).await {
                Ok(()) => None,
                Err(WriteError::Away(reason)) => Some(reason),
                Err(error @ WriteError::Refused { .. }) => {
                    warn!(%error, "the store refuses a write");
                    return Answer::Refused(error.to_string());
                }
            } {
                self.ready.down(away);
                tokio::select! {
                    () = self.stopping.cancelled() => return Answer::GivenUp,
                    () = tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)) => {}
                }
            }
            self.ready.up();
        }
        Answer::Stored
    }

    async fn write_once(&self, body: Bytes) -> Result<(), WriteError> {
        let begun = Instant::now();
        let written = self.store.write(body).await;
        let outcome = match &written {
            Ok(()) => Outcome::Stored,
            Err(WriteError::Refused { .. }) => Outcome::Refused,
            Err(WriteError::Away(_)) => Outcome::Away,
        };
        self.metrics.wrote(outcome, begun.elapsed());
        written
    }

    /// Another replica, or this one after its restart, stores it.
    async fn give_back(&self, batches: &[Batch]) {
        let envelopes: usize = batches.iter().map(|batch| batch.units.len()).sum();
        info!(envelopes, "giving back what could not be stored before the stop");
        for unit in batches.iter().flat_map(|batch| &batch.units) {
            unit.delivery.nak(GIVE_BACK_AFTER).await;
        }
    }

    async fn bury(&self, delivery: &Delivery, reason: &str) {
        if delivery.bury("metric-writer", reason).await {
            self.metrics.dead();
        }
    }
}

fn span(batch: &Batch) -> tracing::Span {
    let span = info_span!("store", envelopes = batch.units.len());
    telemetry::context::adopt_all(&span, batch.units.iter().filter_map(|unit| unit.delivery.traceparent()));
    span
}

/// The two halves of a batch that the store refuses.
fn halves(mut batch: Batch) -> [Batch; 2] {
    let later = batch.units.split_off(batch.units.len().div_ceil(2));
    let mut reader = Reader::new(intake::REMEMBERED);
    [later, batch.units].map(|units| {
        let mut half = Batch::default();
        for unit in units {
            match intake::read(&mut reader, &unit.delivery, &mut half.samples) {
                Ok(_) => half.units.push(unit),
                // Not answered for, it comes again.
                Err(error) => warn!(%error, "an envelope that was read before cannot be read again"),
            }
        }
        half
    })
}

/// Sends what was said to the broker before the process ends; unsent, it makes envelopes come again half a minute later.
pub(crate) async fn flush(bus: &Bus) {
    match timeout(FLUSH_WITHIN, bus.flush()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(error = format!("{error:#}"), "cannot send the last answers to the broker"),
        Err(_) => warn!("the broker does not take the last answers"),
    }
}

/// Growing pauses with jitter, so that replicas do not come back all at once.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
