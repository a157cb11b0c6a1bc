//! Claims what is due, sends it, and has written down what came of it.

mod claims;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::seal::Seal;
use ::store::Pools;
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::Notification;
use settings::Secret;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::Instrument as _;
use url::Url;
use uuid::Uuid;

use crate::body;
use crate::delivery::{self, Backoff, Next, Outcome};
use crate::metrics::Metrics;
use crate::receiver;
use crate::share::{self, Limits, Occupied};
use crate::store::claiming::{self, Claimed, Claimer, Waiting};
use crate::store::finishing::Finished;
use crate::webhook::{Post, Sender};
use crate::worker::claims::{Claims, LEASE};
use crate::worker::writer::Writer;

/// How often is looked for what has become due.
const TICK: Duration = Duration::from_millis(200);

/// How long is waited before a receiver is looked at again that somebody else was at; each further time twice as long, up to
/// a [`TICK`].
const PASSED_OVER: Duration = Duration::from_millis(5);

/// Delivers until the process stops. Clones share everything.
#[derive(Clone)]
pub struct Worker {
    /// The ledger.
    pub pools: Pools,
    /// Opens secrets.
    pub seal: Arc<Seal>,
    /// Sends.
    pub sender: Sender,
    /// How failures are repeated.
    pub backoff: Backoff,
    /// How many attempts at the same time.
    pub limits: Limits,
    /// Where notifications link to.
    pub external_url: Url,
    /// This process among others.
    pub claimer: Claimer,
    /// For what comes before a delivery.
    pub waiting: Waiting,
    /// Counts attempts.
    pub metrics: Metrics,
    /// Told when there are new deliveries.
    pub added: Arc<Notify>,
    /// Wakes the outbox: a delivery is over.
    pub finished: Arc<Notify>,
}

/// An attempt under way.
struct Running {
    receiver_id: Uuid,
    tenant: String,
    proven: bool,
}

/// Attempts under way, by delivery.
type Busy = BTreeMap<String, Running>;

/// What attempts share.
#[derive(Clone)]
struct Desk {
    claims: Claims,
    /// To the writer.
    ended: mpsc::UnboundedSender<Finished>,
}

impl Worker {
    /// This process, as others see its claims.
    #[must_use]
    pub fn claimer() -> Claimer {
        Claimer { owner: Uuid::new_v4(), lease: LEASE }
    }

    /// The loop. When the process stops it claims no more, and waits for what is under way and for its being written.
    ///
    /// # Errors
    /// An attempt panicked.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let (claims, more) = (Claims::default(), Arc::new(Notify::new()));
        let (ended, to_write) = mpsc::unbounded_channel();
        let writer = Writer {
            pools: self.pools.clone(),
            claimer: self.claimer.clone(),
            backoff: self.backoff,
            claims: claims.clone(),
            more: Arc::clone(&more),
            finished: Arc::clone(&self.finished),
        };
        let (mut writing, mut renewing) = (JoinSet::new(), JoinSet::new());
        writing.spawn(writer.run(to_write));
        // Until all is written.
        renewing.spawn(claims.clone().renew(self.pools.clone(), self.claimer.clone()));
        self.deliver(&Desk { claims, ended }, &more, &stopping).await?;
        while let Some(end) = writing.join_next().await {
            end?;
        }
        Ok(())
    }

    async fn deliver(&self, desk: &Desk, more: &Notify, stopping: &CancellationToken) -> anyhow::Result<()> {
        let mut running: JoinSet<String> = JoinSet::new();
        let mut busy = Busy::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = TICK;
        loop {
            tokio::select! {
                () = stopping.cancelled(), if !stopping.is_cancelled() => {}
                () = self.added.notified() => {}
                () = more.notified() => {}
                () = tokio::time::sleep(pause), if pause < TICK => {}
                _ = tick.tick() => {}
                Some(ended) = running.join_next() => {
                    busy.remove(&ended?);
                    while let Some(ended) = running.try_join_next() {
                        busy.remove(&ended?);
                    }
                }
            }
            if stopping.is_cancelled() {
                if running.is_empty() {
                    return Ok(());
                }
            } else {
                let passed_over = self.begin(desk, &mut running, &mut busy).await;
                pause = match pause {
                    _ if !passed_over => TICK,
                    TICK => PASSED_OVER,
                    shorter => (2 * shorter).min(TICK),
                };
            }
        }
    }

    /// Begins what is due; says whether somebody was at a receiver that has something to do.
    async fn begin(&self, desk: &Desk, running: &mut JoinSet<String>, busy: &mut Busy) -> bool {
        // What cannot be written down is not added to.
        if desk.claims.count() >= 2 * self.limits.all {
            return false;
        }
        let occupied = occupied(busy);
        let full = share::full(&occupied, self.limits);
        let share = |candidates: &[share::Candidate]| share::places(candidates, &occupied, self.limits);
        let asked = Instant::now();
        let mut passed_over = false;
        match self.pools.bounded(claiming::claim(&self.pools.work, &self.claimer, &self.waiting, &full, share)).await {
            Ok(claims) => {
                passed_over = claims.passed_over;
                for claimed in claims.claimed {
                    let (receiver_id, tenant, proven) = (claimed.receiver_id, claimed.tenant.clone(), claimed.proven);
                    busy.insert(claimed.id.clone(), Running { receiver_id, tenant, proven });
                    desk.claims.hold(&claimed.id, asked);
                    running.spawn(self.clone().attempt(claimed, desk.clone()).in_current_span());
                }
            }
            Err(error) if ::store::is_away(&error) => tracing::debug!(%error, "cannot look for due deliveries"),
            Err(error) => tracing::error!(%error, "cannot look for due deliveries"),
        }
        self.metrics.attempts_running.set(i64::try_from(busy.len()).unwrap_or(i64::MAX));
        passed_over
    }

    async fn attempt(self, claimed: Claimed, desk: Desk) -> String {
        let span = tracing::info_span!(
            "deliver",
            delivery = claimed.id,
            attempt = claimed.number,
            receiver = claimed.receiver
        );
        if let Some(traceparent) = &claimed.traceparent {
            telemetry::context::adopt(&span, traceparent);
        }
        async {
            let begun = Instant::now();
            let outcome = tokio::select! {
                outcome = self.send(&claimed) => outcome,
                () = desk.claims.until_run_out(&claimed.id) => {
                    tracing::warn!("cut off: the claim could not be renewed, so another dispatcher may send it");
                    self.metrics.attempts.of(["cut_off"]).inc();
                    desk.claims.drop(&claimed.id);
                    return;
                }
            };
            let took = begun.elapsed();
            let age = claimed.age.saturating_add(took);
            let next = delivery::next(&outcome, claimed.number, age, &self.backoff, rand::random());
            self.count(&outcome, &next, took);
            tracing::info!(status = outcome.status(), error = outcome.error(), ?next, ?took, "delivery attempted");
            let finished = Finished {
                id: claimed.id.clone(),
                number: claimed.number,
                receiver_id: claimed.receiver_id,
                receiver: claimed.receiver.clone(),
                group_id: claimed.group_id.clone(),
                took,
                outcome,
                next,
            };
            // The writer ends after everybody who sends to it.
            let _ = desk.ended.send(finished);
        }
        .instrument(span)
        .await;
        claimed.id
    }

    async fn send(&self, claimed: &Claimed) -> Outcome {
        let rendered = Notification::decode(claimed.payload.as_slice())
            .map_err(anyhow::Error::from)
            .and_then(|notification| body::render(&notification, &claimed.receiver, &self.external_url));
        let body = match rendered {
            Ok(body) => body,
            Err(error) => return Outcome::Impossible(format!("cannot write the message: {error}")),
        };
        let secrets = claimed.secrets.iter().map(|kept| receiver::open(&self.seal, claimed.receiver_id, kept));
        let secrets: Vec<Secret> = match secrets.collect() {
            Ok(secrets) => secrets,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "cannot read a receiver's secret");
                return Outcome::Barred("the receiver's secret cannot be read; rotate it".to_owned());
            }
        };
        let traceparent = telemetry::context::current().or_else(|| claimed.traceparent.clone());
        let traceparent = traceparent.unwrap_or_else(|| untraced(&claimed.id));
        let post = Post { id: &claimed.id, url: &claimed.url, secrets: &secrets, traceparent: &traceparent, body };
        self.sender.send(post).await
    }

    fn count(&self, outcome: &Outcome, next: &Next, took: Duration) {
        let word = match outcome {
            Outcome::Answered { status: 200..=299, .. } => "delivered",
            Outcome::Answered { .. } => "refused",
            Outcome::Unanswered(_) => "unanswered",
            Outcome::Barred(_) => "barred",
            Outcome::Impossible(_) => "impossible",
        };
        self.metrics.attempts.of([word]).inc();
        self.metrics.attempt_duration.observe(took.as_secs_f64());
        match next {
            Next::Delivered => self.metrics.deliveries.of(["delivered"]).inc(),
            Next::Failed(_) => self.metrics.deliveries.of(["failed"]).inc(),
            Next::Retry(_) => 0,
        };
    }
}

fn occupied(busy: &Busy) -> BTreeMap<Uuid, Occupied> {
    let mut occupied: BTreeMap<Uuid, Occupied> = BTreeMap::new();
    for running in busy.values() {
        let Running { receiver_id, tenant, proven } = running;
        let of_receiver = occupied.entry(*receiver_id);
        let of_receiver = of_receiver.or_insert_with(|| Occupied { tenant: tenant.clone(), count: 0, proven: *proven });
        of_receiver.count += 1;
        of_receiver.proven &= proven;
    }
    occupied
}

/// A trace that is not sampled, made of the delivery's id, so that a receiver's own trace can be matched with our log.
fn untraced(id: &str) -> String {
    let hex: String = id.chars().filter(char::is_ascii_hexdigit).collect();
    let hex = &hex[hex.len().saturating_sub(32)..];
    format!("00-{hex:0>32}-{:016x}-00", rand::random::<u64>().max(1))
}

#[cfg(test)]
mod tests {
    use super::untraced;
    use crate::delivery;

    #[test]
    fn what_is_not_traced_has_a_valid_context_all_the_same() {
        let context = untraced(&delivery::id("n", "ops"));
        let parts: Vec<&str> = context.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert!(delivery::id("n", "ops").ends_with(parts[1]));
    }
}
