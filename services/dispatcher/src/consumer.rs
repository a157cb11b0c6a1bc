//! Reads notifications: each becomes a delivery a receiver, and is acknowledged when that is committed.

use std::sync::Arc;

use bus::{Bus, Delivery, Options, Stream};
use futures::FutureExt as _;
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::Notification;
use sqlx::PgPool;
use tokio::sync::Notify;

use crate::hold::{Hold, bury, is_poison};
use crate::metrics::Metrics;
use crate::store::deliveries::{self, Incoming};

/// The durable consumer that replicas share.
pub const DURABLE: &str = "dispatcher";

/// Notifications in one transaction. A single one never waits for others.
const BATCH: usize = 64;

/// Reads notifications until the process stops.
pub struct Consumer {
    /// Where they come from.
    pub bus: Bus,
    /// The ledger.
    pub pool: PgPool,
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
            match read(&delivery) {
                Ok(notification) => {
                    incoming.push(notification);
                    held.push(delivery);
                }
                Err(reason) => {
                    self.metrics.malformed.inc();
                    bury(&delivery, &reason).await;
                }
            }
        }
        if !held.is_empty() {
            self.add(&held, &incoming, stopping).await;
        }
    }

    async fn add(&self, held: &[Delivery], incoming: &[Incoming], stopping: &CancellationToken) {
        let mut hold = Hold::new(held, stopping);
        let outcome = loop {
            match deliveries::add(&self.pool, incoming).await {
                Err(error) if !is_poison(&error) => {
                    if !hold.wait(&error).await {
                        return;
                    }
                }
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(added) => {
                self.metrics.notifications.inc_by(held.len().try_into().unwrap_or(u64::MAX));
                if added > 0 {
                    self.added.notify_one();
                    self.finished.notify_one();
                }
                bus::ack_all(held).await;
            }
            // One of them cannot be written: alone, the others can.
            Err(error) if held.len() > 1 => {
                tracing::warn!(%error, "cannot store notifications together; storing one at a time");
                for (delivery, incoming) in held.iter().zip(incoming) {
                    Box::pin(self.add(std::slice::from_ref(delivery), std::slice::from_ref(incoming), stopping)).await;
                }
            }
            Err(error) => {
                for delivery in held {
                    self.metrics.malformed.inc();
                    bury(delivery, &format!("cannot be stored: {error}")).await;
                }
            }
        }
    }
}

fn read(delivery: &Delivery) -> Result<Incoming, String> {
    let notification =
        Notification::decode(delivery.payload().clone()).map_err(|error| format!("not a notification: {error}"))?;
    let alert = notification.alert.as_ref().ok_or("the notification has no alert")?;
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
