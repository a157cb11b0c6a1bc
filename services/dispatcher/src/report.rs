//! Tells how deliveries ended: at once when one is over, and every second what a crash or an absent broker has left.
//! The event's id is the delivery's, so telling twice is telling once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, Outgoing, PublishError, Subject};
use futures::future::join_all;
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::DeliveryEvent;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tracing::Instrument as _;

use crate::metrics::Metrics;
use crate::store::deliveries::{self, Unreported};

/// Events on their way at once.
const BATCH: i64 = 64;

/// How often is looked for what nobody woke us for.
const SWEEP: Duration = Duration::from_secs(1);

/// Reports until the process stops.
pub struct Reporter {
    /// Where events go.
    pub bus: Bus,
    /// The ledger.
    pub pool: PgPool,
    /// Counts what is pending.
    pub metrics: Metrics,
    /// Told when a delivery is over.
    pub finished: Arc<Notify>,
}

impl Reporter {
    /// The loop.
    ///
    /// # Errors
    /// None; the signature is that of a supervised task.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let swept = tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                () = self.finished.notified() => false,
                _ = sweep.tick() => true,
            };
            if let Err(error) = self.report_all(swept).await {
                tracing::warn!(error = format!("{error:#}"), "the ends of deliveries wait to be told");
                // Without a pause, a wake would be tried again at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn report_all(&self, swept: bool) -> anyhow::Result<()> {
        while self.report_some().await? == usize::try_from(BATCH).unwrap_or(usize::MAX) {}
        if swept {
            self.metrics.pending.set(deliveries::count_pending(&self.pool).await.context("count the deliveries")?);
        }
        Ok(())
    }

    /// The rows stay locked until the broker has answered, so that no other replica tells the same meanwhile.
    async fn report_some(&self) -> anyhow::Result<usize> {
        let mut transaction = self.pool.begin().await.context("begin to read the ledger")?;
        let over = deliveries::unreported(&mut transaction, BATCH).await.context("read the ledger")?;
        if over.is_empty() {
            return Ok(0);
        }
        let published = join_all(over.iter().map(|delivery| self.publish(delivery))).await;
        let told = over.iter().zip(&published).filter(|(_, ok)| ok.is_ok());
        let told: Vec<String> = told.map(|(delivery, _)| delivery.id.clone()).collect();
        deliveries::mark_reported(&mut transaction, &told).await.context("mark what was told")?;
        transaction.commit().await.context("commit what was told")?;
        published.into_iter().collect::<Result<Vec<()>, _>>().context("publish delivery events")?;
        Ok(over.len())
    }

    async fn publish(&self, delivery: &Unreported) -> Result<(), PublishError> {
        let span = tracing::info_span!("report", delivery = delivery.id);
        let event = DeliveryEvent {
            tenant: delivery.tenant.clone(),
            notification_id: delivery.notification_id.clone(),
            group_id: delivery.alert_id.clone(),
            receiver: delivery.receiver.clone(),
            state: delivery.state.clone(),
            attempts: delivery.attempts,
            error: delivery.error.clone(),
            received_unix_nano: delivery.received,
            finished_unix_nano: delivery.finished,
        };
        let mut message = Outgoing::new(delivery.id.clone(), event.encode_to_vec());
        if let Some(traceparent) = &delivery.traceparent {
            telemetry::context::adopt(&span, traceparent);
            message = message.header(telemetry::context::HEADER, traceparent);
        }
        self.bus.publish(Subject::Deliveries, message).instrument(span).await
    }
}
