//! Reads what shards say: transitions, of which what lies ready goes through [`intake`] together, and [`levels`]. Each
//! message is acknowledged when it is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::store::{Pools, is_away, is_poison};
use bus::{Batch, Bus, Delivery, Options, Stream, Subject, Trial};
use lifecycle::CancellationToken;
use tokio::sync::Notify;

use crate::intake::{self, Fate, Incoming, Patience, Taken};
use crate::levels::{self, Heard, Levels};
use crate::metrics::Metrics;
use crate::transition::Transition;

/// The durable consumer that replicas share, and whose name stands on dead letters.
pub const DURABLE: &str = "alert-service";

/// Transitions in one transaction. A single one never waits for others.
const BATCH: usize = 256;

/// How long Postgres may take for a batch, and how long one is held while it is away: people wait for pages, and another
/// replica may reach it.
const ONE_TRY: Duration = Duration::from_secs(15);
const HELD: Duration = Duration::from_secs(10);

/// How long the broker may take to say how far everything is answered: pages wait meanwhile.
const ONE_ANSWER: Duration = Duration::from_millis(500);

/// Reads what shards say until the process stops.
pub struct Consumer {
    /// Where it comes from.
    pub bus: Bus,
    /// The service's tables.
    pub pools: Pools,
    /// How long is remembered what was applied. What waited longer may be a repeat, and pages nobody.
    pub retention: Duration,
    /// How long a transition waits for the one before it.
    pub patience: Duration,
    /// Counts them.
    pub metrics: Metrics,
    /// Wakes the outbox.
    pub committed: Arc<Notify>,
    /// Wakes the timers.
    pub timer_set: Arc<Notify>,
    /// Whether Postgres was away when it was last needed.
    pub is_cut_off: AtomicBool,
    /// Everything up to this place in the stream was answered when that was last asked, because something waited.
    pub answered: AtomicU64,
}

impl Consumer {
    /// The loop.
    ///
    /// # Errors
    /// None; the signature is that of a supervised task.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut deliveries = self.bus.consume(Stream::Transitions, DURABLE, Options::default());
        while let Some(arrived) = stopping.run_until_cancelled(self.next(&mut deliveries)).await {
            if let Some(trial) = Trial::begin(DURABLE, &arrived).await {
                self.handle(arrived, &stopping).await;
                trial.end().await;
            }
        }
        deliveries.close().await;
        Ok(())
    }

    async fn next(&self, deliveries: &mut bus::Deliveries) -> Vec<Delivery> {
        if self.is_cut_off.load(Ordering::Relaxed) {
            self.pools.until_answers().await;
        }
        deliveries.several(BATCH).await
    }

    async fn handle(&self, arrived: Vec<Delivery>, stopping: &CancellationToken) {
        let namespace = &self.bus.settings().namespace;
        let subjects = [Subject::Transitions, Subject::Levels].map(|subject| subject.name(namespace));
        let mut transitions = batch();
        let mut rounds = Vec::new();
        for delivery in arrived {
            if delivery.subject() == subjects[0] {
                self.read(delivery, &mut transitions).await;
            } else if delivery.subject() == subjects[1] {
                rounds.push(delivery);
            } else {
                self.metrics.transitions.of(["unknown"]).inc();
                delivery.put_off(DURABLE, "its subject is unknown").await;
            }
        }
        let take = async |incoming| {
            // Boxed, as everything that holds a whole transaction: it would be copied into every future around it.
            let patience = Patience { most: self.patience, answered: self.answered.load(Ordering::Relaxed) };
            let taken = Box::pin(intake::take(&self.pools, incoming, patience)).await;
            self.is_cut_off.store(taken.as_ref().is_err_and(is_away), Ordering::Relaxed);
            taken
        };
        transitions.work_off(stopping, is_poison, take, |held, taken| self.settle(held, taken)).await;
        for delivery in rounds {
            self.hear(delivery, stopping).await;
        }
    }

    async fn read(&self, delivery: Delivery, transitions: &mut Batch<Incoming>) {
        if delivery.age() > self.retention {
            self.metrics.transitions.of(["expired"]).inc();
            delivery.bury(DURABLE, "older than SIGHTLINE_ALERT_RETENTION: it may have been applied before").await;
            return;
        }
        match Transition::decode(delivery.payload()) {
            Ok(transition) => {
                let (sequence, traceparent) = (delivery.stream_sequence(), delivery.traceparent().map(str::to_owned));
                transitions.push(delivery, Incoming { transition, sequence, traceparent });
            }
            Err(malformed) if malformed.is_unknown() => {
                self.metrics.transitions.of(["unknown"]).inc();
                delivery.put_off(DURABLE, &malformed.to_string()).await;
            }
            Err(malformed) => self.bury(&delivery, &malformed.to_string()).await,
        }
    }

    async fn settle(&self, held: &[Delivery], taken: sqlx::Result<Taken>) {
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => return self.bury(&held[0], &format!("cannot be stored: {error}")).await,
        };
        if taken.told {
            self.committed.notify_one();
        }
        let mut done = Vec::new();
        for (delivery, fate) in held.iter().zip(&taken.fates) {
            self.metrics.transitions.of([name(fate)]).inc();
            match fate {
                Fate::Applied(_) | Fate::Repeated => done.push(delivery),
                Fate::Waits(pause) => delivery.nak(*pause).await,
                Fate::Refused(reason) => {
                    delivery.bury(DURABLE, reason).await;
                }
            }
        }
        bus::ack_all(done).await;
        if taken.fates.iter().any(|fate| matches!(fate, Fate::Waits(_))) {
            self.ask_what_is_answered().await;
        }
    }

    /// What waits is given up early where nothing before it is under way; where that is not known, it is not.
    async fn ask_what_is_answered(&self) {
        if let Ok(Ok(progress)) = tokio::time::timeout(ONE_ANSWER, self.bus.progress(Stream::Transitions)).await {
            self.answered.fetch_max(progress.stored, Ordering::Relaxed);
        }
    }

    async fn hear(&self, delivery: Delivery, stopping: &CancellationToken) {
        let levels = match Levels::decode(delivery.payload(), delivery.stream_sequence()) {
            Ok(levels) => levels,
            Err(reason) => {
                self.metrics.levels.of(["malformed"]).inc();
                delivery.bury(DURABLE, &reason).await;
                return;
            }
        };
        let mut batch = batch();
        batch.push(delivery, levels);
        let take = |levels: &[Levels]| {
            let one = levels.first().cloned();
            async move {
                match one {
                    Some(levels) => Box::pin(levels::take(&self.pools, &levels)).await,
                    None => Ok(Heard::default()),
                }
            }
        };
        batch.work_off(stopping, is_poison, take, |held, heard| self.settle_heard(held, heard)).await;
    }

    async fn settle_heard(&self, held: &[Delivery], heard: sqlx::Result<Heard>) {
        match heard {
            Ok(heard) => {
                self.metrics.levels.of([if heard.is_outdated { "outdated" } else { "taken" }]).inc();
                if heard.is_complete {
                    self.timer_set.notify_one();
                }
                if heard.found > 0 {
                    tracing::warn!(found = heard.found, "alerts that were ended as lost fire all the same");
                    self.metrics.reconciled.of(["found"]).inc_by(heard.found);
                    self.committed.notify_one();
                }
                bus::ack_all(held).await;
            }
            Err(error) => {
                self.metrics.levels.of(["malformed"]).inc();
                held[0].bury(DURABLE, &format!("cannot be stored: {error}")).await;
            }
        }
    }

    async fn bury(&self, delivery: &Delivery, reason: &str) {
        self.metrics.transitions.of(["malformed"]).inc();
        delivery.bury(DURABLE, reason).await;
    }
}

fn batch<I>() -> Batch<I> {
    Batch::default().within(ONE_TRY).held(HELD)
}

fn name(fate: &Fate) -> &'static str {
    match fate {
        Fate::Applied(outcome) => outcome.as_str(),
        Fate::Repeated => "repeated",
        Fate::Waits(_) => "waits",
        Fate::Refused(_) => "refused",
    }
}
