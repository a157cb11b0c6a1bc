//! Reads notifications: each becomes a delivery a receiver, and is acknowledged when that is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::store::{Pools, is_away, is_poison};
use bus::{Batch, Bus, Delivery, Options, Stream, Trial};
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::Notification;
use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::store::adding::{self, Incoming, Patience};

/// The durable consumer that replicas share, and whose name stands on dead letters.
pub const DURABLE: &str = "dispatcher";

/// Notifications in one transaction. A single one never waits for others.
const BATCH: usize = 64;

/// How long Postgres may take for a batch, and how long one is held while it is away: people wait for pages, and another
/// replica may reach it.
const ONE_TRY: Duration = Duration::from_secs(15);
const HELD: Duration = Duration::from_secs(10);

/// Receivers that one notification may name.
const MOST_RECEIVERS: usize = 256;

/// Reads notifications until the process stops.
pub struct Consumer {
    /// Where they come from.
    pub bus: Bus,
    /// The ledger.
    pub pools: Pools,
    /// How long a notification waits for those before it, and how long is remembered what was delivered: what is older may be
    /// a repeat, and is sent to nobody.
    pub patience: Patience,
    /// Counts them.
    pub metrics: Metrics,
    /// Wakes the worker.
    pub added: Arc<Notify>,
    /// Wakes the outbox: what came too late is over at once.
    pub finished: Arc<Notify>,
    /// Whether Postgres was away when it was last needed.
    pub is_cut_off: AtomicBool,
}

impl Consumer {
    /// The loop.
    ///
    /// # Errors
    /// None; the signature is that of a supervised task.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut deliveries = self.bus.consume(Stream::Notifications, DURABLE, Options::default());
        while let Some(arrived) = stopping.run_until_cancelled(self.next(&mut deliveries)).await {
            if let Some(trial) = Trial::begin(DURABLE, &arrived).await {
                self.handle(arrived, &stopping).await;
                trial.end().await;
            }
        }
        deliveries.close().await;
        Ok(())
    }

    async fn next(&self, deliveries: &mut bus::Deliveries) -> Vec<Delivery> {
        if self.is_cut_off.load(Ordering::Relaxed) {
            self.pools.until_answers().await;
        }
        deliveries.several(BATCH).await
    }

    async fn handle(&self, arrived: Vec<Delivery>, stopping: &CancellationToken) {
        let mut batch = Batch::default().within(ONE_TRY).held(HELD);
        for delivery in arrived {
            if delivery.age() > self.patience.retention {
                self.metrics.expired.inc();
                delivery.bury(DURABLE, "older than SIGHTLINE_DELIVERY_RETENTION: it may have been sent before").await;
                continue;
            }
            match read(&delivery) {
                Ok(incoming) => batch.push(delivery, incoming),
                Err(reason) => self.bury(&delivery, &reason).await,
            }
        }
        let add = async |incoming| {
            // Boxed, as it holds a whole transaction: it would be copied into every future around it.
            let added = self.pools.bounded(Box::pin(adding::add(&self.pools.work, incoming, self.patience))).await;
            self.is_cut_off.store(added.as_ref().is_err_and(is_away), Ordering::Relaxed);
            added
        };
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
    let group = notification.group.as_ref().ok_or("the notification has no group")?;
    let alert = notification.alerts.first().ok_or("the notification has no alert")?;
    let texts = [&notification.id, &notification.tenant, &group.id, &alert.id, &alert.state];
    if texts.iter().any(|text| text.is_empty()) {
        return Err("an id, the tenant or the state is missing".to_owned());
    }
    if notification.receivers.len() > MOST_RECEIVERS {
        return Err(format!("{} receivers are too many", notification.receivers.len()));
    }
    let alerts = notification.alerts.iter().flat_map(|alert| [&alert.id, &alert.rule_name]);
    let names = notification.receivers.iter().chain(texts).chain(alerts);
    if names.into_iter().any(|text| text.contains('\0')) {
        return Err("a name contains NUL".to_owned());
    }
    let traceparent = delivery.traceparent().map(str::to_owned);
    Ok(Incoming { notification, traceparent })
}
