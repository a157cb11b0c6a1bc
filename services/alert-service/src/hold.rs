//! Holds messages while Postgres is away: they are kept, in order, and the broker hears that they are still in work.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use bus::Delivery;
use lifecycle::CancellationToken;

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Messages whose work cannot be stored just now.
pub struct Hold<'a> {
    held: &'a [Delivery],
    stopping: &'a CancellationToken,
    delays: ExponentialBackoff,
}

impl<'a> Hold<'a> {
    /// Holds `held` until they are stored or the process stops.
    #[must_use]
    pub fn new(held: &'a [Delivery], stopping: &'a CancellationToken) -> Self {
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times();
        Self { held, stopping, delays: delays.build() }
    }

    /// Waits before the next attempt. False when the process stops; the messages have then been given back.
    pub async fn wait(&mut self, error: &sqlx::Error) -> bool {
        tracing::debug!(%error, held = self.held.len(), "cannot store yet");
        for delivery in self.held {
            delivery.progress().await;
        }
        tokio::select! {
            () = tokio::time::sleep(self.delays.next().unwrap_or(LONGEST_PAUSE)) => true,
            () = self.stopping.cancelled() => {
                for delivery in self.held {
                    delivery.nak(Duration::ZERO).await;
                }
                false
            }
        }
    }
}

/// Puts a message away that can never be handled. If even that fails, it comes again.
pub async fn bury(delivery: &Delivery, reason: &str) {
    if let Err(error) = delivery.dead("alert-service", reason).await {
        tracing::warn!(%error, sequence = delivery.stream_sequence(), "cannot write a dead letter; the message comes again");
    }
}
