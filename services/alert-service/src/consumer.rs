//! Reads transitions: what lies ready goes through [`intake`] together, and is acknowledged when it is committed.

use std::sync::Arc;
use std::time::Duration;

use bus::{Batch, Bus, Delivery, Options, Stream};
use lifecycle::CancellationToken;
use sqlx::PgPool;
use store::is_poison;
use tokio::sync::Notify;

use crate::intake::{self, Incoming, Taken};
use crate::metrics::Metrics;
use crate::transition::Transition;

/// The durable consumer that replicas share, and whose name stands on dead letters.
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
    /// How long is remembered what was applied. What waited longer may be a repeat, and pages nobody.
    pub retention: Duration,
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
        while let Some(arrived) = stopping.run_until_cancelled(deliveries.several(BATCH)).await {
            self.handle(arrived, &stopping).await;
        }
        deliveries.close().await;
        Ok(())
    }

    async fn handle(&self, arrived: Vec<Delivery>, stopping: &CancellationToken) {
        let mut batch = Batch::default();
        for delivery in arrived {
            if delivery.age() > self.retention {
                self.metrics.expired();
                delivery.bury(DURABLE, "older than SIGHTLINE_ALERT_RETENTION: it may have been applied before").await;
                continue;
            }
            match Transition::decode(delivery.payload()) {
                Ok(transition) => {
                    let incoming = read(&delivery, transition);
                    batch.push(delivery, incoming);
                }
                Err(malformed) => self.bury(&delivery, &malformed.to_string()).await,
            }
        }
        let take = |incoming| intake::take(&self.pool, incoming);
        batch.work_off(stopping, is_poison, take, |held, taken| self.settle(held, taken)).await;
    }

    async fn settle(&self, held: &[Delivery], taken: sqlx::Result<Vec<Taken>>) {
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => return self.bury(&held[0], &format!("cannot be stored: {error}")).await,
        };
        if taken.iter().any(|taken| matches!(taken, Taken::Applied(_, true))) {
            self.committed.notify_one();
        }
        for (delivery, taken) in held.iter().zip(&taken) {
            self.metrics.taken(taken);
            match taken {
                Taken::Applied(..) | Taken::Repeated => delivery.ack().await,
                Taken::AwaitsPredecessor => {
                    let times = u32::try_from(delivery.deliveries()).unwrap_or(u32::MAX).clamp(1, 8);
                    delivery.nak(PAUSE * times).await;
                }
                Taken::Refused(reason) => {
                    delivery.bury(DURABLE, reason).await;
                }
            }
        }
    }

    async fn bury(&self, delivery: &Delivery, reason: &str) {
        self.metrics.malformed();
        delivery.bury(DURABLE, reason).await;
    }
}

fn read(delivery: &Delivery, transition: Transition) -> Incoming {
    Incoming {
        transition,
        sequence: delivery.stream_sequence(),
        may_wait: delivery.age() < PATIENCE,
        traceparent: delivery.traceparent().map(str::to_owned),
    }
}
