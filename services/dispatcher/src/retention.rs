//! Deletes what is past its retention, one replica for all.

use std::time::Duration;

use lifecycle::CancellationToken;
use sqlx::PgPool;

use crate::metrics::Metrics;
use crate::store::pruning::{BATCH, prune};

const EVERY: Duration = Duration::from_secs(600);

/// Prunes until the process stops.
pub struct Retention {
    /// The ledger.
    pub pool: PgPool,
    /// How long deliveries that are over are kept.
    pub keep: Duration,
    /// Counts what goes.
    pub metrics: Metrics,
}

impl Retention {
    /// The loop.
    ///
    /// # Errors
    /// None; the signature is that of a supervised task.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        store::upkeep(self.pool.clone(), "retention", EVERY, stopping, || self.round()).await
    }

    async fn round(&self) -> sqlx::Result<()> {
        loop {
            let pruned = prune(&self.pool, self.keep).await?;
            for (table, rows) in pruned {
                self.metrics.pruned(table, rows);
            }
            if pruned.iter().all(|(_, rows)| *rows < BATCH) {
                return Ok(());
            }
        }
    }
}
