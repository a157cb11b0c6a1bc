//! Reads notifications: each becomes a delivery a receiver, and is acknowledged when that is committed.

use std::sync::Arc;
use std::time::Duration;

use bus::{Batch, Bus, Delivery, Options, Stream};
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::Notification;
use sqlx::PgPool;
use store::is_poison;
use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::store::deliveries::{self, Incoming};

/// The durable consumer that replicas share, and whose name stands on dead letters.
pub const DURABLE: &str = "dispatcher";

/// Notifications in one transaction. A single one never waits for others.
const BATCH: usize = 64;

/// Reads notifications until the process stops.
pub struct Consumer {
    /// Where they come from.
    pub bus: Bus,
    /// The ledger.
    pub pool: PgPool,
    /// How long is remembered what was delivered. What waited longer may be a repeat, and is sent to nobody.
    pub retention: Duration,
    /// Counts them.
    pub metrics: Metrics,
    /// Wakes the worker.
    pub added: Arc<Notify>,
    /// Wakes the reporter: a delivery to nobody is over at once.
    pub finished: Arc<Notify>,
}

impl Consumer {
    /// The loop.
    ///
    /// # Errors
    /// None; the signature is that of a supervised task.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut deliveries = self.bus.consume(Stream::Notifications, DURABLE, Options::default());
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
                self.metrics.expired.inc();
                delivery.bury(DURABLE, "older than SIGHTLINE_DELIVERY_RETENTION: it may have been sent before").await;
                continue;
            }
            match read(&delivery) {
                Ok(incoming) => batch.push(delivery, incoming),
                Err(reason) => self.bury(&delivery, &reason).await,
            }
        }
        let add = |incoming| deliveries::add(&self.pool, incoming);
        batch.work_off(stopping, is_poison, add, |held, added| self.settle(held, added)).await;
    }

    async fn settle(&self, held: &[Delivery], added: sqlx::Result<u64>) {
        let added = match added {
            Ok(added) => added,
            Err(error) => return self.bury(&held[0], &format!("cannot be stored: {error}")).await,
        };
        self.metrics.notifications.inc_by(held.len().try_into().unwrap_or(u64::MAX));
        if added > 0 {
            self.added.notify_one();
            self.finished.notify_one();
        }
        bus::ack_all(held).await;
    }

    async fn bury(&self, delivery: &Delivery, reason: &str) {
        self.metrics.malformed.inc();
        delivery.bury(DURABLE, reason).await;
    }
}

fn read(delivery: &Delivery) -> Result<Incoming, String> {
    let notification =
        Notification::decode(delivery.payload().clone()).map_err(|error| format!("not a notification: {error}"))?;
    let alert = notification.alerts.first().ok_or("the notification has no alert")?;
    let texts = [&notification.id, &notification.tenant, &alert.id, &alert.state];
    if texts.iter().any(|text| text.is_empty()) {
        return Err("an id, the tenant or the state is missing".to_owned());
    }
    let names = notification.receivers.iter().chain(texts).chain([&alert.rule_name]);
    if names.into_iter().any(|text| text.contains('\0')) {
        return Err("a name contains NUL".to_owned());
    }
    let traceparent = delivery.traceparent().map(str::to_owned);
    Ok(Incoming { notification, traceparent })
}
