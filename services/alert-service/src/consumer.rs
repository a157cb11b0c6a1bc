//! Reads transitions: what lies ready goes through [`intake`] together, and is acknowledged when it is committed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bus::{Bus, Delivery, Options, Stream};
use futures::FutureExt as _;
use lifecycle::CancellationToken;
use sqlx::PgPool;
use tokio::sync::Notify;

use crate::hold::{Hold, bury, is_poison};
use crate::intake::{self, Incoming, Taken};
use crate::metrics::Metrics;
use crate::transition::Transition;

/// The durable consumer that replicas share.
pub const DURABLE: &str = "alert-service";

/// Transitions in one transaction. A single one never waits for others.
const BATCH: usize = 64;

/// How long an end waits for its beginning. What a killed replica held comes again after 20 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it stays away the first time; each further time a little longer, up to eight times as long.
const PAUSE: Duration = Duration::from_millis(250);

/// Reads transitions until the process stops.
pub struct Consumer {
    /// Where they come from.
    pub bus: Bus,
    /// The service's tables.
    pub pool: PgPool,
    /// Counts them.
    pub metrics: Metrics,
    /// Wakes the outbox.
    pub committed: Arc<Notify>,
}

impl Consumer {
    /// The loop.
    ///
    /// # Errors
    /// None; the signature is that of a supervised task.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut deliveries = self.bus.consume(Stream::Transitions, DURABLE, Options::default());
        loop {
            let first = tokio::select! {
                () = stopping.cancelled() => break,
                delivery = deliveries.next() => delivery,
            };
            let mut batch = vec![first];
            while batch.len() < BATCH {
                match deliveries.next().now_or_never() {
                    Some(delivery) => batch.push(delivery),
                    None => break,
                }
            }
            self.handle(batch, &stopping).await;
        }
        deliveries.close().await;
        Ok(())
    }

    async fn handle(&self, batch: Vec<Delivery>, stopping: &CancellationToken) {
        let mut held = Vec::with_capacity(batch.len());
        let mut incoming = Vec::with_capacity(batch.len());
        for delivery in batch {
            match Transition::decode(delivery.payload()) {
                Ok(transition) => {
                    incoming.push(read(&delivery, transition));
                    held.push(delivery);
                }
                Err(malformed) => {
                    self.metrics.malformed();
                    bury(&delivery, &malformed.to_string()).await;
                }
            }
        }
        if !held.is_empty() {
            self.take(&held, &incoming, stopping).await;
        }
    }

    async fn take(&self, held: &[Delivery], incoming: &[Incoming], stopping: &CancellationToken) {
        let mut hold = Hold::new(held, stopping);
        let outcome = loop {
            match intake::take(&self.pool, incoming).await {
                Err(error) if !is_poison(&error) => {
                    if !hold.wait(&error).await {
                        return;
                    }
                }
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(taken) => self.settle(held, &taken).await,
            // One of them cannot be written: alone, the others can.
            Err(error) if held.len() > 1 => {
                tracing::warn!(%error, "cannot store transitions together; storing one at a time");
                for (delivery, incoming) in held.iter().zip(incoming) {
                    Box::pin(self.take(std::slice::from_ref(delivery), std::slice::from_ref(incoming), stopping)).await;
                }
            }
            Err(error) => {
                for delivery in held {
                    self.metrics.malformed();
                    bury(delivery, &format!("cannot be stored: {error}")).await;
                }
            }
        }
    }

    async fn settle(&self, held: &[Delivery], taken: &[Taken]) {
        if taken.iter().any(|taken| matches!(taken, Taken::Applied(_, true))) {
            self.committed.notify_one();
        }
        for (delivery, taken) in held.iter().zip(taken) {
            self.metrics.taken(taken);
            match taken {
                Taken::Applied(..) | Taken::Repeated => delivery.ack().await,
                Taken::AwaitsPredecessor => {
                    let times = u32::try_from(delivery.deliveries()).unwrap_or(u32::MAX).clamp(1, 8);
                    delivery.nak(PAUSE * times).await;
                }
                Taken::Refused(reason) => bury(delivery, reason).await,
            }
        }
    }
}

fn read(delivery: &Delivery, transition: Transition) -> Incoming {
    let published = SystemTime::UNIX_EPOCH + Duration::from_nanos(delivery.published());
    // A broker whose clock is ahead makes an age of nothing.
    let age = SystemTime::now().duration_since(published).unwrap_or_default();
    Incoming {
        transition,
        sequence: delivery.stream_sequence(),
        may_wait: age < PATIENCE,
        traceparent: delivery.traceparent().map(str::to_owned),
    }
}
