//! Takes sightings from the broker and writes them down, several at a time.

use std::time::{SystemTime, UNIX_EPOCH};

use bus::{Batch, Bus, Delivery, Options, Stream};
use lifecycle::CancellationToken;

use crate::metrics::{Metrics, Outcome};
use crate::presence::{Nanos, Status, Thresholds, nanos};
use crate::relay::Bell;
use crate::resource::Sighting;
use crate::store::{Store, Told};

/// The durable consumer that all replicas share, and whose name stands on dead letters.
pub const DURABLE: &str = "registry";
/// Sightings come in a flood when a gateway or a site starts; one transaction for many keeps up with it.
const BATCH: usize = 100;

/// Writes sightings down.
pub struct Consumer {
    pub store: Store,
    pub thresholds: Thresholds,
    pub metrics: Metrics,
    pub bell: Bell,
}

impl Consumer {
    /// Until the process stops.
    ///
    /// # Errors
    /// None: what cannot be done now is done later.
    pub async fn run(self, bus: Bus, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut deliveries =
            bus.consume(Stream::Resources, DURABLE, Options { max_messages: BATCH, ..Options::default() });
        while let Some(arrived) = stopping.run_until_cancelled(deliveries.several(BATCH)).await {
            self.take(arrived, &stopping).await;
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
        // Lenient, since this clock is not the gateway's; whatever it says, the sweeper soon knows better.
        let offline_from = self.thresholds.offline_from(now);
        let fresh = |seen: Nanos| if seen >= offline_from { Status::Online } else { Status::Offline };
        self.store.write(sightings, now, fresh).await
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
            self.metrics.sighting(match told {
                Told::New => Outcome::Registered,
                Told::Different => Outcome::Described,
                Told::Nothing => Outcome::Known,
            });
            if let Some(change) = told.change() {
                self.metrics.change(change);
                self.bell.ring();
            }
        }
    }

    async fn bury(&self, delivery: &Delivery, reason: &str) {
        if delivery.bury(DURABLE, reason).await {
            self.metrics.sighting(Outcome::Dead);
        }
    }
}

fn now() -> Nanos {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}
