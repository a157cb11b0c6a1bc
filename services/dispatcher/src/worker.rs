//! Claims what is due, sends it, and writes down what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::Notification;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::Instrument as _;
use url::Url;
use uuid::Uuid;

use crate::body;
use crate::delivery::{self, Backoff, Outcome};
use crate::metrics::Metrics;
use crate::store::deliveries::{self, Claimed, Claimer, Finished};
use crate::webhook::{Post, Sender};

/// Attempts of one process at the same time.
const MOST_RUNNING: usize = 256;

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
    pub pool: PgPool,
    /// Sends.
    pub sender: Sender,
    /// How failures are repeated.
    pub backoff: Backoff,
    /// Where notifications link to.
    pub external_url: Url,
    /// This process among others.
    pub claimer: Claimer,
    /// Counts attempts.
    pub metrics: Metrics,
    /// Told when there are new deliveries.
    pub added: Arc<Notify>,
    /// Told when a delivery is over.
    pub finished: Arc<Notify>,
}

impl Worker {
    /// This process, as others see its claims.
    #[must_use]
    pub fn claimer(per_receiver: u16) -> Claimer {
        Claimer { owner: Uuid::new_v4(), lease: LEASE, per_receiver }
    }

    /// The loop. When the process stops it claims no more and waits for what is under way.
    ///
    /// # Errors
    /// An attempt panicked.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut running: JoinSet<String> = JoinSet::new();
        let mut busy: BTreeMap<String, Uuid> = BTreeMap::new();
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

    async fn begin(&self, running: &mut JoinSet<String>, busy: &mut BTreeMap<String, Uuid>) {
        let Ok(room) = i64::try_from(MOST_RUNNING.saturating_sub(running.len())) else { return };
        let mut counts = BTreeMap::new();
        for receiver in busy.values() {
            *counts.entry(*receiver).or_default() += 1;
        }
        match deliveries::claim(&self.pool, &self.claimer, &counts, room).await {
            Ok(claimed) => {
                for claimed in claimed {
                    busy.insert(claimed.id.clone(), claimed.receiver_id);
                    running.spawn(self.clone().attempt(claimed).in_current_span());
                }
            }
            Err(error) if ::store::is_away(&error) => tracing::debug!(%error, "cannot look for due deliveries"),
            Err(error) => tracing::error!(%error, "cannot look for due deliveries"),
        }
    }

    async fn renew(&self, busy: &BTreeMap<String, Uuid>) {
        if busy.is_empty() {
            return;
        }
        let ids: Vec<String> = busy.keys().cloned().collect();
        if let Err(error) = deliveries::renew(&self.pool, &self.claimer, &ids).await {
            tracing::warn!(%error, "cannot renew claims; another dispatcher may send the same deliveries again");
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
            self.metrics.attempted(&outcome, &next, took);
            tracing::info!(status = outcome.status(), error = outcome.error(), ?next, ?took, "delivery attempted");
            self.write(Finished { id: claimed.id.clone(), number: claimed.number, took, outcome, next }).await;
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
        let traceparent = telemetry::context::current().or_else(|| claimed.traceparent.clone());
        let traceparent = traceparent.unwrap_or_else(|| untraced(&claimed.id));
        let post =
            Post { id: &claimed.id, url: &claimed.url, secret: &claimed.secret, traceparent: &traceparent, body };
        self.sender.send(post).await
    }

    /// Goes on until it is written: if the process ends before, the claim runs out and the delivery is tried again.
    async fn write(&self, finished: Finished) {
        while let Err(error) = deliveries::finish(&self.pool, &self.claimer, &finished).await {
            if !::store::is_away(&error) {
                tracing::error!(%error, "cannot write down how an attempt ended; it will be repeated");
                return;
            }
            tokio::time::sleep(WRITE_AGAIN).await;
        }
        if !matches!(finished.next, delivery::Next::Retry(_)) {
            self.finished.notify_one();
        }
    }
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
