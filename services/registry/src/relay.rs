//! Carries changes from the outbox to the broker, one replica at a time and in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, Outgoing, Subject};
use lifecycle::CancellationToken;
use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::store::{Pending, Store, published};

const BATCH: i64 = 100;
/// How late a change may be that another replica made; this one rings the bell.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_secs(1);

/// Wakes the relay of this process.
#[derive(Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// There is something in the outbox.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// Publishes until the process stops.
///
/// # Errors
/// None: what cannot be published now is published later.
pub async fn run(
    store: Store,
    bus: Bus,
    metrics: Metrics,
    bell: Bell,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let mut failing = false;
    while !stopping.is_cancelled() {
        match publish(&store, &bus, &metrics).await {
            Ok(0) => {
                failing = false;
                let rung = tokio::time::timeout(LOOK_EVERY, bell.0.notified());
                let _ = stopping.run_until_cancelled(rung).await;
            }
            Ok(_) => failing = false,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error = format!("{error:#}"), "cannot publish changes; they wait");
                }
                let _ = stopping.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
        }
    }
    Ok(())
}

/// Publishes what is there, and tells how much that was.
async fn publish(store: &Store, bus: &Bus, metrics: &Metrics) -> anyhow::Result<usize> {
    let (transaction, pending) = store.pending(BATCH).await.context("read the outbox")?;
    let mut done = Vec::with_capacity(pending.len());
    let mut outcome = Ok(());
    for Pending { position, message_id, tenant, payload } in pending {
        let message = Outgoing::new(message_id.to_string(), payload).header("Sl-Tenant", tenant);
        outcome = bus.publish(Subject::ResourcesChanged, message).await.context("publish a change");
        if outcome.is_err() {
            break;
        }
        done.push(position);
    }
    if !done.is_empty() {
        published(transaction, &done).await.context("clear the outbox")?;
        metrics.published.inc_by(u64::try_from(done.len()).unwrap_or_default());
    }
    outcome.map(|()| done.len())
}
