//! What has to be looked at from time to time: deliveries whose receiver has come, whose time is over, or that nobody would
//! look at because of a mistake of ours.

use std::sync::Arc;
use std::time::Duration;

use ::store::Pools;
use lifecycle::CancellationToken;
use tokio::sync::Notify;

use crate::breaker::DOWN_AFTER;
use crate::metrics::Metrics;
use crate::store::overdue::{self, Patience};
use crate::store::{adding, health};

const EVERY: Duration = Duration::from_secs(1);

/// Rounds between two comparisons of what is noted with what is there.
const COMPARE_EVERY: u32 = 10;

/// Looks until the process stops.
pub struct Upkeep {
    /// The ledger.
    pub pools: Pools,
    /// When deliveries are given up.
    pub patience: Patience,
    /// Says how much waits.
    pub metrics: Metrics,
    /// Wakes the worker.
    pub added: Arc<Notify>,
    /// Wakes the outbox.
    pub finished: Arc<Notify>,
}

impl Upkeep {
    /// The loop.
    ///
    /// # Errors
    /// None; the signature is that of a supervised task.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut round = 0_u32;
        while stopping.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            round = round.wrapping_add(1);
            if let Err(error) = self.pools.bounded(self.look(round.is_multiple_of(COMPARE_EVERY))).await {
                tracing::debug!(%error, "cannot look after deliveries");
            }
        }
        Ok(())
    }

    async fn look(&self, compare: bool) -> sqlx::Result<()> {
        let pool = &self.pools.work;
        if adding::adopt(pool).await? > 0 {
            self.added.notify_one();
        }
        loop {
            let (given_up, is_more) = overdue::give_up(pool, self.patience).await?;
            if given_up > 0 {
                self.metrics.deliveries.of(["failed"]).inc_by(u64::try_from(given_up).unwrap_or(u64::MAX));
                self.finished.notify_one();
            }
            if !is_more || given_up == 0 {
                break;
            }
        }
        if compare {
            let found = health::compare(pool).await?;
            if found > 0 {
                tracing::warn!(receivers = found, "receivers had something to be sent that was not noted");
            }
        }
        self.metrics.deliveries_pending.set(overdue::pending(pool).await?);
        self.metrics.receivers_down.set(overdue::down(pool, DOWN_AFTER).await?);
        Ok(())
    }
}
