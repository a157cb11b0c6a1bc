//! Publishes what lies in the outbox: at once when a transaction has put something there, and every second what a crash
//! or an absent broker has left. The notification's id is the message's, so publishing twice is publishing once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, Outgoing, Subject};
use futures::future::join_all;
use lifecycle::CancellationToken;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tracing::Instrument as _;

use crate::metrics::Metrics;
use crate::store::{self, Waiting};

/// Notifications on their way at once.
const BATCH: i64 = 64;

/// How often is looked for what nobody woke us for.
const SWEEP: Duration = Duration::from_secs(1);

/// Publishes until the process stops.
pub struct Publisher {
    /// Where they go.
    pub bus: Bus,
    /// The service's tables.
    pub pool: PgPool,
    /// Counts them.
    pub metrics: Metrics,
    /// Told by whoever has put something into the outbox.
    pub committed: Arc<Notify>,
}

impl Publisher {
    /// The loop.
    ///
    /// # Errors
    /// None; the signature is that of a supervised task.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let swept = tokio::select! {
                () = stopping.cancelled() => break,
                () = self.committed.notified() => false,
                _ = sweep.tick() => true,
            };
            if let Err(error) = self.publish_all(swept).await {
                tracing::warn!(error = format!("{error:#}"), "notifications wait in the outbox");
                // Without a pause, a wake would be tried again at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        // What was committed last should not wait for the next start.
        self.publish_all(false).await.context("publish the last notifications")
    }

    async fn publish_all(&self, swept: bool) -> anyhow::Result<()> {
        while self.publish_some().await? == usize::try_from(BATCH).unwrap_or(usize::MAX) {}
        if swept {
            self.metrics.outbox_waiting.set(store::count_waiting(&self.pool).await.context("count the outbox")?);
        }
        Ok(())
    }

    /// The rows stay locked until the broker has answered: no other replica publishes them meanwhile, and if this
    /// process dies, the next one finds them waiting.
    async fn publish_some(&self) -> anyhow::Result<usize> {
        let mut transaction = self.pool.begin().await.context("begin to read the outbox")?;
        let waiting = store::waiting(&mut transaction, BATCH).await.context("read the outbox")?;
        if waiting.is_empty() {
            return Ok(0);
        }
        let published = join_all(waiting.iter().map(|waiting| self.publish(waiting))).await;
        let sent: Vec<i64> =
            waiting.iter().zip(&published).filter(|(_, ok)| ok.is_ok()).map(|(w, _)| w.number).collect();
        store::mark_sent(&mut transaction, &sent).await.context("mark what was sent")?;
        transaction.commit().await.context("commit what was sent")?;
        self.metrics.notifications.inc_by(sent.len().try_into().unwrap_or(u64::MAX));
        published.into_iter().collect::<Result<Vec<()>, _>>().context("publish notifications")?;
        Ok(waiting.len())
    }

    async fn publish(&self, waiting: &Waiting) -> Result<(), bus::PublishError> {
        let span = tracing::info_span!("publish", notification = waiting.id);
        let mut message = Outgoing::new(waiting.id.clone(), waiting.payload.clone());
        if let Some(traceparent) = &waiting.traceparent {
            telemetry::context::adopt(&span, traceparent);
            message = message.header(telemetry::context::HEADER, traceparent);
        }
        let begun = std::time::Instant::now();
        self.bus.publish(Subject::Notifications, message).instrument(span).await?;
        self.metrics.publish_delay.observe(waiting.age + begun.elapsed().as_secs_f64());
        Ok(())
    }
}
