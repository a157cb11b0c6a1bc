//! The owner's work on one shard: read, evaluate, publish, save.

mod outlet;
mod save;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bus::{Bus, Delivery, Envelope, Follow, Schema};
use lifecycle::CancellationToken;
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::book::Book;
use crate::evaluation::{Evaluation, Tally};
use crate::metrics::{Metrics, Signal};
use crate::store::{Position, Snapshot, Store};
use crate::transition::Decision;

use outlet::Outlet;

/// The least time between snapshots. One that takes long to make is made more seldom.
const SAVE_EVERY: Duration = Duration::from_secs(2);
const SAVE_SHARE: u32 = 20;
/// Rules that changed while nobody owned the shard wait for the backlog to be read, but not for longer than that.
const LONGEST_CATCH_UP: Duration = Duration::from_secs(30);

/// What every shard of a replica works with.
#[derive(Clone)]
pub struct Tools {
    pub bus: Bus,
    pub store: Store,
    pub books: watch::Receiver<Arc<Book>>,
    pub metrics: Metrics,
}

/// How an owner is told to end, and what it tells.
#[derive(Clone, Default)]
pub struct Control {
    /// Save and end.
    pub release: CancellationToken,
    /// Somebody else may own the shard: end at once, saving nothing.
    pub lost: CancellationToken,
    /// When the last snapshot was saved, in Unix milliseconds.
    pub saved_ms: Arc<AtomicU64>,
}

/// Why an owner ended without a last snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// A newer owner has claimed it.
    Fenced,
    /// The broker or Postgres was away when the shard was to be released; the next owner starts from the one before.
    Unsaved,
}

/// Owns a shard until told otherwise.
pub async fn own(number: u16, epoch: i64, tools: Tools, control: Control) {
    let lost = control.lost.clone();
    tokio::select! {
        () = lost.cancelled() => tracing::warn!(shard = number, epoch, "shard lost; its evaluation stops here"),
        ended = evaluate(number, epoch, tools, control) => match ended {
            Ok(()) => tracing::info!(shard = number, epoch, "shard released"),
            Err(Ended::Fenced) => tracing::warn!(shard = number, epoch, "a newer owner has the shard"),
            Err(Ended::Unsaved) => tracing::warn!(shard = number, epoch, "shard released without a last snapshot"),
        },
    }
}

async fn evaluate(number: u16, epoch: i64, tools: Tools, control: Control) -> Result<(), Ended> {
    let started = tokio::select! {
        started = save::start(number, epoch, &tools) => started?,
        // Nothing was evaluated, so there is nothing to save.
        () = control.release.cancelled() => return Ok(()),
    };
    let mut owner = Owner::new(number, epoch, tools, control, started);
    owner.save().await?;
    owner.run().await
}

struct Owner {
    number: u16,
    epoch: i64,
    tools: Tools,
    control: Control,
    outlet: Outlet,
    evaluation: Evaluation,
    metrics: Lane,
    logs: Lane,
    next_save: Instant,
    /// Until then the rules of the snapshot's revision stay in use while the backlog is read.
    catch_up_ends: Instant,
}

/// One of the shard's two streams.
struct Lane {
    signal: Signal,
    follow: Follow,
    position: Position,
    /// The stream's last sequence when the shard was taken over.
    backlog_end: u64,
}

/// Neither stream holds up the other.
async fn next_message(metrics: &mut Lane, logs: &mut Lane) -> (Signal, Delivery) {
    tokio::select! {
        delivery = metrics.follow.next() => (metrics.signal, delivery),
        delivery = logs.follow.next() => (logs.signal, delivery),
    }
}

impl Lane {
    fn is_caught_up(&self) -> bool {
        self.position.sequence >= self.backlog_end
    }
}

impl Owner {
    fn new(number: u16, epoch: i64, tools: Tools, control: Control, started: save::Started) -> Self {
        tracing::info!(
            shard = number,
            epoch,
            metrics = started.metrics.position.sequence,
            logs = started.logs.position.sequence,
            revision = started.evaluation.book().revision,
            "shard taken over"
        );
        Self {
            number,
            epoch,
            outlet: Outlet::new(number, epoch, &tools, &control),
            control,
            evaluation: started.evaluation,
            metrics: started.metrics,
            logs: started.logs,
            next_save: Instant::now(),
            catch_up_ends: Instant::now() + LONGEST_CATCH_UP,
            tools,
        }
    }

    async fn run(&mut self) -> Result<(), Ended> {
        loop {
            if self.has_other_rules() {
                self.switch().await?;
            }
            let (signal, delivery) = tokio::select! {
                biased;
                () = self.control.release.cancelled() => return self.save_last().await,
                Ok(()) = self.tools.books.changed() => continue,
                () = tokio::time::sleep_until(self.next_save.into()) => {
                    self.save().await?;
                    continue;
                }
                next = next_message(&mut self.metrics, &mut self.logs) => next,
            };
            let span = tracing::info_span!("evaluate", shard = self.number, signal = signal.as_str());
            if let Some(traceparent) = delivery.traceparent() {
                telemetry::context::adopt(&span, traceparent);
            }
            self.take(signal, delivery).instrument(span).await?;
        }
    }

    /// Evaluates one message. When this returns, the broker has what was decided.
    async fn take(&mut self, signal: Signal, delivery: Delivery) -> Result<(), Ended> {
        if delivery.missed() > 0 {
            tracing::error!(
                shard = self.number,
                signal = signal.as_str(),
                missed = delivery.missed(),
                "the stream dropped messages before they were evaluated"
            );
            self.tools.metrics.missed(signal, delivery.missed());
        }
        let decisions = self.decide(signal, &delivery);
        let position = Position { sequence: delivery.stream_sequence(), published_unix_nano: delivery.published() };
        drop(delivery);
        self.outlet.publish(&decisions).await?;
        match signal {
            Signal::Metrics => self.metrics.position = position,
            Signal::Logs => self.logs.position = position,
        }
        Ok(())
    }

    fn decide(&mut self, signal: Signal, delivery: &Delivery) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let evaluated = Envelope::decode(delivery)
            .map_err(anyhow::Error::from)
            .and_then(|envelope| self.envelope(signal, &envelope, &mut |decision| decisions.push(decision)));
        // The stream's writer keeps it as a dead letter.
        if let Err(error) = evaluated {
            self.tools.metrics.unreadable(signal);
            tracing::warn!(
                shard = self.number,
                signal = signal.as_str(),
                sequence = delivery.stream_sequence(),
                error = format!("{error:#}"),
                "message passed over"
            );
        }
        decisions
    }

    fn envelope(
        &mut self,
        signal: Signal,
        envelope: &Envelope,
        decide: &mut dyn FnMut(Decision),
    ) -> anyhow::Result<()> {
        let (tenant, body, received) = (&envelope.tenant, &envelope.body, envelope.received_unix_nano);
        let tally: Tally = match (signal, envelope.schema) {
            (Signal::Metrics, Schema::OtlpMetrics) => {
                let tally = self.evaluation.metrics(tenant, body, received, decide)?;
                // Metrics of now say nothing about the hold of a line that is still in the backlog.
                if self.logs.is_caught_up() {
                    self.evaluation.pass_time(received, decide);
                }
                tally
            }
            (Signal::Logs, Schema::OtlpLogs) => self.evaluation.logs(tenant, body, received, decide)?,
            (_, schema) => anyhow::bail!("the schema `{}` does not belong here", schema.as_str()),
        };
        let lag = Duration::from_nanos(unix_nano_now().saturating_sub(received));
        self.tools.metrics.evaluated(signal, tally, lag.as_secs_f64());
        Ok(())
    }

    fn has_other_rules(&self) -> bool {
        let caught_up = self.metrics.is_caught_up() && self.logs.is_caught_up();
        let may_switch = caught_up || Instant::now() >= self.catch_up_ends;
        may_switch && self.tools.books.borrow().revision != self.evaluation.book().revision
    }

    /// Takes up changed rules. The snapshot says so before anything is evaluated with them.
    async fn switch(&mut self) -> Result<(), Ended> {
        let book = Arc::clone(&self.tools.books.borrow_and_update());
        let mut decisions = Vec::new();
        self.evaluation.switch(book, &mut |decision| decisions.push(decision));
        self.outlet.publish(&decisions).await?;
        while !self.save().await? {
            if self.control.release.is_cancelled() {
                return Err(Ended::Unsaved);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Saves once more before the shard is handed on.
    async fn save_last(&mut self) -> Result<(), Ended> {
        if self.save().await? { Ok(()) } else { Err(Ended::Unsaved) }
    }

    /// Whether the snapshot was saved; while Postgres is away it is not, and is tried again soon.
    async fn save(&mut self) -> Result<bool, Ended> {
        let begun = Instant::now();
        let state = match self.evaluation.save().to_bytes() {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(shard = self.number, %error, "cannot compress the snapshot");
                return Ok(false);
            }
        };
        self.tools.metrics.snapshot(state.len());
        let snapshot = Snapshot {
            revision: self.evaluation.book().revision,
            metrics: self.metrics.position,
            logs: self.logs.position,
            state,
        };
        let saved = save::save(self.number, self.epoch, &self.tools.store, &snapshot).await?;
        self.next_save = Instant::now() + SAVE_EVERY.max(begun.elapsed() * SAVE_SHARE);
        if saved {
            self.control.saved_ms.store(unix_nano_now() / 1_000_000, Ordering::Relaxed);
        }
        Ok(saved)
    }
}

fn unix_nano_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok().and_then(|now| u64::try_from(now.as_nanos()).ok()).unwrap_or(0)
}
