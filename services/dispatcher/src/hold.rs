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
        if ::store::is_away(error) {
            tracing::debug!(%error, held = self.held.len(), "cannot store yet");
        } else {
            tracing::warn!(%error, held = self.held.len(), "Postgres refuses; trying on");
        }
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

/// Whether it is the message's own fault that it cannot be stored: a data exception (class 22), a constraint (23) or a
/// row that does not read back. Whatever else is wrong with Postgres, somebody will put it right.
#[must_use]
pub fn is_poison(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            database.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
        }
        sqlx::Error::Decode(_) | sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    }
}

/// Puts a message away that can never be handled. If even that fails, it comes again.
pub async fn bury(delivery: &Delivery, reason: &str) {
    if let Err(error) = delivery.dead("dispatcher", reason).await {
        tracing::warn!(%error, sequence = delivery.stream_sequence(), "cannot write a dead letter; the message comes again");
    }
}
