//! Hears from the dispatcher what became of notifications, and measures how long it took from signal to page.

use std::collections::BTreeMap;
use std::time::Duration;

use ::store::{Pools, is_poison};
use bus::{Batch, Bus, Delivery, Options, Stream, Trial};
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::DeliveryEvent;

use crate::consumer::DURABLE;
use crate::metrics::Metrics;
use crate::store::deliveries::{self, New};
use crate::transition::FIRING;

/// Delivery events taken together.
const BATCH: usize = 256;

/// Reads delivery events until the process stops.
pub struct Deliveries {
    /// Where they come from.
    pub bus: Bus,
    /// The service's tables.
    pub pools: Pools,
    /// Counts them.
    pub metrics: Metrics,
}

struct News {
    delivery: deliveries::Delivery,
    signal_to_page: Option<Duration>,
}

impl Deliveries {
    /// The loop.
    ///
    /// # Errors
    /// None; the signature is that of a supervised task.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut deliveries = self.bus.consume(Stream::Deliveries, DURABLE, Options::default());
        while let Some(arrived) = stopping.run_until_cancelled(deliveries.several(BATCH)).await {
            if let Some(trial) = Trial::begin(DURABLE, &arrived).await {
                self.handle(arrived, &stopping).await;
                trial.end().await;
            }
        }
        deliveries.close().await;
        Ok(())
    }

    async fn handle(&self, arrived: Vec<Delivery>, stopping: &CancellationToken) {
        let mut batch = Batch::default();
        for delivery in arrived {
            match read(&delivery) {
                Ok(news) => batch.push(delivery, news),
                Err(reason) => bury(&delivery, &reason).await,
            }
        }
        batch.work_off(stopping, is_poison, |news| self.record(news), settle).await;
    }

    async fn record(&self, news: &[News]) -> sqlx::Result<()> {
        let deliveries: Vec<&deliveries::Delivery> = news.iter().map(|news| &news.delivery).collect();
        let new = self.pools.bounded(deliveries::save(&self.pools.work, &deliveries)).await?;
        let by_place: BTreeMap<_, _> =
            news.iter().map(|n| ((n.delivery.notification_id.as_str(), n.delivery.receiver.as_str()), n)).collect();
        for New { notification_id, receiver, told } in &new {
            if let Some(news) = by_place.get(&(notification_id.as_str(), receiver.as_str())) {
                self.count(news, told);
            }
        }
        Ok(())
    }

    fn count(&self, news: &News, told: &str) {
        let state = known(&news.delivery.state);
        self.metrics.deliveries.of([state]).inc();
        // An end is told long after the sample that began it; only beginnings are pages.
        if let Some(took) = news.signal_to_page.filter(|_| state == "delivered" && told == FIRING) {
            self.metrics.signal_to_page.observe(took.as_secs_f64());
        }
    }
}

/// The state as a metric's label: one that a newer dispatcher knows is kept in the table as it is.
fn known(state: &str) -> &'static str {
    ["delivered", "failed", "superseded"].into_iter().find(|known| *known == state).unwrap_or("other")
}

async fn settle(held: &[Delivery], recorded: sqlx::Result<()>) {
    match recorded {
        Ok(()) => bus::ack_all(held).await,
        Err(error) => bury(&held[0], &format!("cannot be stored: {error}")).await,
    }
}

async fn bury(delivery: &Delivery, reason: &str) {
    delivery.bury(DURABLE, reason).await;
}

fn read(delivery: &Delivery) -> Result<News, String> {
    let event =
        DeliveryEvent::decode(delivery.payload().clone()).map_err(|error| format!("not a delivery: {error}"))?;
    let texts = [&event.notification_id, &event.receiver, &event.state];
    if texts.iter().any(|text| text.is_empty() || text.contains('\0')) {
        return Err("an id, the receiver or the state is missing".to_owned());
    }
    let took = event.finished_unix_nano.checked_sub(event.received_unix_nano);
    let signal_to_page = took.filter(|_| event.received_unix_nano > 0).map(Duration::from_nanos);
    let delivery = deliveries::Delivery {
        notification_id: event.notification_id,
        receiver: event.receiver,
        state: event.state,
        attempts: event.attempts,
        error: event.error.replace('\0', "\u{fffd}"),
        finished: event.finished_unix_nano,
    };
    Ok(News { delivery, signal_to_page })
}

#[cfg(test)]
mod tests {
    use super::known;

    #[test]
    fn a_state_of_tomorrow_is_counted_as_another() {
        for state in ["delivered", "failed", "superseded"] {
            assert_eq!(known(state), state);
        }
        assert_eq!(known("acknowledged"), "other");
    }
}
