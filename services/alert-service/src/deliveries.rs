//! Hears from the dispatcher what became of notifications, and measures how long it took from signal to page.

use bus::{Bus, Delivery, Options, Stream};
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::DeliveryEvent;
use sqlx::PgPool;

use crate::alert::State;
use crate::consumer::DURABLE;
use crate::hold::{Hold, bury, is_poison};
use crate::metrics::Metrics;
use crate::store;

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
        loop {
            let delivery = tokio::select! {
                () = stopping.cancelled() => break,
                delivery = deliveries.next() => delivery,
            };
            match read(&delivery) {
                Ok((news, signal_to_page)) => self.record(&delivery, &news, signal_to_page, &stopping).await,
                Err(reason) => bury(&delivery, &reason).await,
            }
        }
        deliveries.close().await;
        Ok(())
    }

    async fn record(
        &self,
        delivery: &Delivery,
        news: &store::Delivery,
        signal_to_page: Option<f64>,
        stopping: &CancellationToken,
    ) {
        let held = std::slice::from_ref(delivery);
        let mut hold = Hold::new(held, stopping);
        let outcome = loop {
            match store::save_delivery(&self.pool, news).await {
                Err(error) if !is_poison(&error) => {
                    if !hold.wait(&error).await {
                        return;
                    }
                }
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(first) => {
                if let Some(told) = first {
                    // An end is told long after the sample that began it; only beginnings are pages.
                    self.metrics.delivered(news.delivered, signal_to_page.filter(|_| told == State::Firing));
                }
                delivery.ack().await;
            }
            Err(error) => bury(delivery, &format!("cannot be stored: {error}")).await,
        }
    }
}

/// The news, and the seconds from signal to page where both ends are known.
fn read(delivery: &Delivery) -> Result<(store::Delivery, Option<f64>), String> {
    let event =
        DeliveryEvent::decode(delivery.payload().clone()).map_err(|error| format!("not a delivery: {error}"))?;
    let delivered = match event.state.as_str() {
        "delivered" => true,
        "failed" => false,
        other => return Err(format!("the state `{other}` is unknown")),
    };
    let texts = [&event.notification_id, &event.receiver, &event.alert_id];
    if texts.iter().any(|text| text.is_empty() || text.contains('\0')) {
        return Err("an id or the receiver is missing".to_owned());
    }
    let took = event.finished_unix_nano.checked_sub(event.received_unix_nano);
    let took = took.filter(|_| event.received_unix_nano > 0).map(std::time::Duration::from_nanos);
    let news = store::Delivery {
        notification_id: event.notification_id,
        receiver: event.receiver,
        alert_id: event.alert_id,
        delivered,
        attempts: event.attempts,
        error: event.error.replace('\0', "\u{fffd}"),
        finished: event.finished_unix_nano,
    };
    Ok((news, took.map(|took| took.as_secs_f64())))
}
