//! Claims what is due, sends it, and writes down what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::seal::Seal;
use ::store::Pools;
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::Notification;
use settings::Secret;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::Instrument as _;
use url::Url;
use uuid::Uuid;

use crate::body;
use crate::delivery::{self, Backoff, Next, Outcome};
use crate::metrics::Metrics;
use crate::receiver;
use crate::share::{self, Limits, Occupied};
use crate::store::claiming::{self, Claimed, Claimer};
use crate::store::finishing::{self, Finished};
use crate::webhook::{Post, Sender};

/// How often is looked for what has become due.
const TICK: Duration = Duration::from_millis(200);

/// How long claims of a dead process hold others back, and how often a living one renews them.
const LEASE: Duration = Duration::from_secs(5);
const RENEWAL: Duration = Duration::from_secs(1);

/// How long is waited before an outcome is written again when Postgres is away.
const WRITE_AGAIN: Duration = Duration::from_millis(250);

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

impl Worker {
    /// This process, as others see its claims.
    #[must_use]
    pub fn claimer() -> Claimer {
        Claimer { owner: Uuid::new_v4(), lease: LEASE }
    }

    /// The loop. When the process stops it claims no more and waits for what is under way.
    ///
    /// # Errors
    /// An attempt panicked.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut running: JoinSet<String> = JoinSet::new();
        let mut busy = Busy::new();
        let mut tick = tokio::time::interval(TICK);
        let mut renewal = tokio::time::interval(RENEWAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let look = tokio::select! {
                () = stopping.cancelled(), if !stopping.is_cancelled() => false,
                () = self.added.notified() => true,
                _ = tick.tick() => true,
                _ = renewal.tick() => {
                    self.renew(&busy).await;
                    false
                }
                Some(ended) = running.join_next() => {
                    busy.remove(&ended?);
                    while let Some(ended) = running.try_join_next() {
                        busy.remove(&ended?);
                    }
                    true
                }
            };
            if stopping.is_cancelled() {
                if running.is_empty() {
                    return Ok(());
                }
            } else if look {
                self.begin(&mut running, &mut busy).await;
            }
        }
    }

    async fn begin(&self, running: &mut JoinSet<String>, busy: &mut Busy) {
        let occupied = occupied(busy);
        let full = share::full(&occupied, self.limits);
        let share = |candidates: &[share::Candidate]| share::places(candidates, &occupied, self.limits);
        match self.pools.bounded(claiming::claim(&self.pools.work, &self.claimer, &full, share)).await {
            Ok(claimed) => {
                for claimed in claimed {
                    let (receiver_id, tenant, proven) = (claimed.receiver_id, claimed.tenant.clone(), claimed.proven);
                    busy.insert(claimed.id.clone(), Running { receiver_id, tenant, proven });
                    running.spawn(self.clone().attempt(claimed).in_current_span());
                }
            }
            Err(error) if ::store::is_away(&error) => tracing::debug!(%error, "cannot look for due deliveries"),
            Err(error) => tracing::error!(%error, "cannot look for due deliveries"),
        }
        self.metrics.attempts_running.set(i64::try_from(busy.len()).unwrap_or(i64::MAX));
    }

    async fn renew(&self, busy: &Busy) {
        if busy.is_empty() {
            return;
        }
        let ids: Vec<&str> = busy.keys().map(String::as_str).collect();
        let renewed = tokio::time::timeout(LEASE, claiming::renew(&self.pools.work, &self.claimer, &ids)).await;
        match renewed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot renew claims; another dispatcher may send the same deliveries again");
            }
            Err(_) => tracing::warn!("Postgres is silent; another dispatcher may send the same deliveries again"),
        }
    }

    async fn attempt(self, claimed: Claimed) -> String {
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
            let outcome = self.send(&claimed).await;
            let took = begun.elapsed();
            let age = claimed.age.saturating_add(took);
            let next = delivery::next(&outcome, claimed.number, age, &self.backoff, rand::random());
            self.count(&outcome, &next, took);
            tracing::info!(status = outcome.status(), error = outcome.error(), ?next, ?took, "delivery attempted");
            self.write(Finished {
                id: claimed.id.clone(),
                number: claimed.number,
                receiver_id: claimed.receiver_id,
                receiver: claimed.receiver.clone(),
                group_id: claimed.group_id.clone(),
                took,
                outcome,
                next,
            })
            .await;
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

    /// Goes on until it is written: if the process ends before, the claim runs out and the delivery is tried again.
    async fn write(&self, finished: Finished) {
        let jitter = rand::random();
        let write = || finishing::finish(&self.pools.work, &self.claimer, &finished, &self.backoff, jitter);
        loop {
            match self.pools.bounded(write()).await {
                Ok(true) => return self.finished.notify_one(),
                Ok(false) => return,
                Err(error) if ::store::is_away(&error) => tokio::time::sleep(WRITE_AGAIN).await,
                Err(error) => {
                    tracing::error!(%error, "cannot write down how an attempt ended; it will be repeated");
                    return;
                }
            }
        }
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
