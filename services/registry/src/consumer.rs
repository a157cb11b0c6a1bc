//! Takes sightings from the broker and writes them down, several at a time.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bus::{Batch, Bus, Delivery, Options, Stream, Trial};
use lifecycle::CancellationToken;
use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::presence::{Nanos, Status, Thresholds, nanos};
use crate::resource::Sighting;
use crate::store::{Fresh, Store, Told};

/// The durable consumer that all replicas share, and whose name stands on dead letters.
pub const DURABLE: &str = "registry";
/// Sightings come in a flood when a gateway or a site starts; one transaction for many keeps up with it.
const BATCH: usize = 100;

/// Writes sightings down.
pub struct Consumer {
    pub store: Store,
    pub thresholds: Thresholds,
    pub metrics: Metrics,
    /// Told when there is something to publish.
    pub wake: Arc<Notify>,
}

impl Consumer {
    /// Until the process stops.
    ///
    /// # Errors
    /// None: what cannot be done now is done later.
    pub async fn run(self, bus: Bus, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut deliveries = bus.consume(Stream::Resources, DURABLE, Options { max_messages: BATCH });
        while let Some(arrived) = stopping.run_until_cancelled(deliveries.several(BATCH)).await {
            let Some(trial) = Trial::begin(DURABLE, &arrived).await else { continue };
            self.take(arrived, &stopping).await;
            trial.end().await;
        }
        deliveries.close().await;
        Ok(())
    }

    async fn take(&self, arrived: Vec<Delivery>, stopping: &CancellationToken) {
        let mut readable = Vec::with_capacity(arrived.len());
        for delivery in arrived {
            match Sighting::read(delivery.payload(), delivery.published()) {
                Ok(sighting) => readable.push((sighting, delivery)),
                Err(error) => self.bury(&delivery, &error.to_string()).await,
            }
        }
        readable.sort_by(|(a, _), (b, _)| (&a.tenant, &a.id, a.seen).cmp(&(&b.tenant, &b.id, b.seen)));
        let mut batch = Batch::default();
        for (sighting, delivery) in readable {
            batch.push(delivery, sighting);
        }
        let write = |sightings| self.write(sightings);
        batch.work_off(stopping, store::is_poison, write, |held, written| self.settle(held, written)).await;
    }

    async fn write(&self, sightings: &[Sighting]) -> Result<Vec<Told>, sqlx::Error> {
        let now = now();
        let fresh = |sighting: &Sighting| {
            let interval = self.thresholds.assumed(&sighting.kind);
            // Lenient, since this clock is not the gateway's; whatever it says, the sweeper soon knows better.
            let is_gone = now - sighting.seen > self.thresholds.offline(interval);
            Fresh { status: if is_gone { Status::Offline } else { Status::Online }, interval }
        };
        Box::pin(self.store.write(sightings, now, fresh)).await
    }

    async fn settle(&self, held: &[Delivery], written: Result<Vec<Told>, sqlx::Error>) {
        match written {
            Ok(told) => {
                self.count(&told);
                bus::ack_all(held).await;
            }
            Err(error) => self.bury(&held[0], &format!("Postgres refused it: {error}")).await,
        }
    }

    fn count(&self, told: &[Told]) {
        for told in told {
            self.metrics.sightings.of([told.as_str()]).inc();
            if let Some(change) = told.change() {
                self.metrics.changes.of([change.as_str()]).inc();
                self.wake.notify_one();
            }
        }
    }

    async fn bury(&self, delivery: &Delivery, reason: &str) {
        if delivery.bury(DURABLE, reason).await {
            self.metrics.sightings.of(["dead"]).inc();
        }
    }
}

fn now() -> Nanos {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}
