//! What is due is done by one loop, on whichever replica is first. A kind that only a newer release knows is left to that.

use std::sync::Arc;

use ::store::Pools;
use ::store::outbox::SWEEP;
use lifecycle::CancellationToken;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::levels;
use crate::metrics::Metrics;
use crate::store::timers::{self, Due};

/// What can be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A round of a shard, the key, is complete: alerts that it does not confirm are to be ended.
    Unconfirmed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Unconfirmed];

    /// The kind in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unconfirmed => levels::UNCONFIRMED,
        }
    }
}

/// Does what is due until the process stops.
pub struct Timers {
    /// The service's tables.
    pub pools: Pools,
    /// Counts what was done.
    pub metrics: Metrics,
    /// Told by whoever has set one.
    pub set: Arc<Notify>,
    /// Wakes the outbox.
    pub committed: Arc<Notify>,
}

impl Timers {
    /// The loop.
    ///
    /// # Errors
    /// None: what cannot be done now is done later.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                () = self.set.notified() => {}
                _ = sweep.tick() => {}
            }
            while !stopping.is_cancelled() {
                match self.pools.bounded(Box::pin(self.one())).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::debug!(%error, "cannot do what is due");
                        break;
                    }
                }
            }
        }
    }

    /// Does a portion of one thing; says whether there was something. Another replica may be at the same: what it is about
    /// is locked by who does it.
    async fn one(&self) -> sqlx::Result<bool> {
        let kinds = Kind::ALL.map(Kind::as_str);
        let Some(Due { key: shard, .. }) = timers::due(&self.pools.work, &kinds).await? else { return Ok(false) };
        let lost = levels::end_unconfirmed(&self.pools, &shard).await?;
        if lost > 0 {
            tracing::warn!(lost, shard, "alerts were ended because their shard does not confirm them");
            self.metrics.reconciled.of(["lost"]).inc_by(lost);
            self.committed.notify_one();
        }
        Ok(true)
    }
}
