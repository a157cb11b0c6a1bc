//! Hears from the dispatcher what became of notifications, and measures how long it took from signal to page.

use ::store::is_poison;
use bus::{Batch, Bus, Delivery, Options, Stream};
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::DeliveryEvent;
use sqlx::PgPool;

use crate::alert::State;
use crate::consumer::DURABLE;
use crate::metrics::Metrics;
use crate::store;

/// Delivery events taken together.
const BATCH: usize = 64;

/// Reads delivery events until the process stops.
pub struct Deliveries {
    /// Where they come from.
    pub bus: Bus,
    /// The service's tables.
    pub pool: PgPool,
    /// Counts them.
    pub metrics: Metrics,
}

impl Deliveries {
    /// The loop.
    ///
    /// # Errors
    /// None; the signature is that of a supervised task.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut deliveries = self.bus.consume(Stream::Deliveries, DURABLE, Options::default());
        while let Some(arrived) = stopping.run_until_cancelled(deliveries.several(BATCH)).await {
            self.handle(arrived, &stopping).await;
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

    /// What is recorded already when one of them fails is no news the next time.
    async fn record(&self, news: &[News]) -> sqlx::Result<()> {
        for News { delivery, signal_to_page } in news {
            if let Some(told) = store::save_delivery(&self.pool, delivery).await? {
                // An end is told long after the sample that began it; only beginnings are pages.
                self.metrics.delivered(delivery.delivered, signal_to_page.filter(|_| told == State::Firing));
            }
        }
        Ok(())
    }
}

struct News {
    delivery: store::Delivery,
    /// Seconds, where both ends are known.
    signal_to_page: Option<f64>,
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
    let delivered = match event.state.as_str() {
        "delivered" => true,
        "failed" => false,
        other => return Err(format!("the state `{other}` is unknown")),
    };
    let texts = [&event.notification_id, &event.receiver];
    if texts.iter().any(|text| text.is_empty() || text.contains('\0')) {
        return Err("an id or the receiver is missing".to_owned());
    }
    let took = event.finished_unix_nano.checked_sub(event.received_unix_nano);
    let took = took.filter(|_| event.received_unix_nano > 0).map(std::time::Duration::from_nanos);
    let delivery = store::Delivery {
        notification_id: event.notification_id,
        receiver: event.receiver,
        alert_id: event.group_id,
        delivered,
        attempts: event.attempts,
        error: event.error.replace('\0', "\u{fffd}"),
        finished: event.finished_unix_nano,
    };
    Ok(News { delivery, signal_to_page: took.map(|took| took.as_secs_f64()) })
}
