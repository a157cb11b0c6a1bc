//! Takes sightings from the broker and writes them down, several at a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{Bus, Deliveries, Delivery, Options, Stream};
use futures::FutureExt as _;
use lifecycle::CancellationToken;

use crate::metrics::{Metrics, Outcome};
use crate::presence::{Nanos, Status, Thresholds, nanos};
use crate::relay::Bell;
use crate::resource::Sighting;
use crate::store::{Store, Told};

/// The durable consumer that all replicas share.
pub const DURABLE: &str = "registry";
const SERVICE: &str = "registry";
/// Sightings come in a flood when a gateway or a site starts; one transaction for many keeps up with it.
const BATCH: usize = 100;
/// Between attempts while Postgres is away, far below the time in which a delivery must be answered.
const PAUSE: Duration = Duration::from_secs(1);

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
        while let Some(batch) = stopping.run_until_cancelled(gather(&mut deliveries)).await {
            self.take(batch, &stopping).await;
        }
        deliveries.close().await;
        Ok(())
    }

    async fn take(&self, batch: Vec<Delivery>, stopping: &CancellationToken) {
        let mut readable = Vec::with_capacity(batch.len());
        for delivery in batch {
            match Sighting::read(delivery.payload(), delivery.published()) {
                Ok(sighting) => readable.push((sighting, delivery)),
                Err(error) => self.bury(&delivery, &error.to_string()).await,
            }
        }
        readable.sort_by(|(a, _), (b, _)| (&a.tenant, &a.id, a.seen).cmp(&(&b.tenant, &b.id, b.seen)));
        let (sightings, deliveries): (Vec<_>, Vec<_>) = readable.into_iter().unzip();
        match self.write(&sightings, &deliveries, stopping).await {
            Ok(()) => {}
            // One of them is the reason: alone, each shows whether it is.
            Err(_) if sightings.len() > 1 => {
                for (sighting, delivery) in std::iter::zip(&sightings, &deliveries) {
                    let one = self.write(std::slice::from_ref(sighting), std::slice::from_ref(delivery), stopping);
                    if let Err(error) = one.await {
                        self.bury(delivery, &format!("Postgres refused it: {error}")).await;
                    }
                }
            }
            Err(error) => {
                for delivery in &deliveries {
                    self.bury(delivery, &format!("Postgres refused it: {error}")).await;
                }
            }
        }
    }

    /// Writes and acknowledges. While Postgres is away the deliveries are held, so that waiting does not use them up.
    async fn write(
        &self,
        sightings: &[Sighting],
        deliveries: &[Delivery],
        stopping: &CancellationToken,
    ) -> Result<(), sqlx::Error> {
        let mut told_of_absence = false;
        loop {
            let now = now();
            // Lenient, since this clock is not the gateway's; whatever it says, the sweeper soon knows better.
            let offline_from = self.thresholds.offline_from(now);
            let fresh = |seen: Nanos| if seen >= offline_from { Status::Online } else { Status::Offline };
            match self.store.write(sightings, now, fresh).await {
                Ok(told) => {
                    self.count(&told);
                    bus::ack_all(deliveries).await;
                    return Ok(());
                }
                Err(error) if store::is_away(&error) => {
                    if !std::mem::replace(&mut told_of_absence, true) {
                        tracing::warn!(%error, "cannot write sightings down; holding them");
                    }
                }
                Err(error) => return Err(error),
            }
            for delivery in deliveries {
                delivery.progress().await;
            }
            if stopping.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                for delivery in deliveries {
                    delivery.nak(Duration::ZERO).await;
                }
                return Ok(());
            }
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
        match delivery.dead(SERVICE, reason).await {
            Ok(()) => self.metrics.sighting(Outcome::Dead),
            Err(error) => tracing::warn!(%error, reason, "cannot write a dead letter; the message comes again"),
        }
    }
}

/// One delivery, and those that are there already.
async fn gather(deliveries: &mut Deliveries) -> Vec<Delivery> {
    let mut batch = vec![deliveries.next().await];
    while batch.len() < BATCH {
        let Some(delivery) = deliveries.next().now_or_never() else { break };
        batch.push(delivery);
    }
    batch
}

fn now() -> Nanos {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}
