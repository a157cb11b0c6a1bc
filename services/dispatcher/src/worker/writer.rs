//! Writes down how attempts ended: what lies ready goes together, so that a storm of answers is few transactions.

use std::sync::Arc;
use std::time::Duration;

use ::store::Pools;
use tokio::sync::{Notify, mpsc};

use super::claims::Claims;
use crate::delivery::Backoff;
use crate::store::claiming::Claimer;
use crate::store::finishing::{self, Finished};

/// Attempts written in one transaction.
const AT_ONCE: usize = 64;

/// How long is waited before they are written again when Postgres is away.
const WRITE_AGAIN: Duration = Duration::from_millis(250);

/// Writes until nobody sends any more.
pub struct Writer {
    /// The ledger.
    pub pools: Pools,
    /// This process among others.
    pub claimer: Claimer,
    /// How failures are repeated.
    pub backoff: Backoff,
    /// What this process has claimed.
    pub claims: Claims,
    /// Wakes the worker: what stood behind a delivery may go.
    pub more: Arc<Notify>,
    /// Wakes the outbox: a delivery is over.
    pub finished: Arc<Notify>,
}

impl Writer {
    /// The loop.
    pub async fn run(self, mut ended: mpsc::UnboundedReceiver<Finished>) {
        let mut next = ended.recv().await;
        while let Some(first) = next.take() {
            let mut batch = vec![first];
            while batch.len() < AT_ONCE
                && let Ok(finished) = ended.try_recv()
            {
                // One that was claimed anew meanwhile is written by itself.
                if batch.iter().any(|other| other.id == finished.id) {
                    next = Some(finished);
                    break;
                }
                batch.push(finished);
            }
            self.write(&batch).await;
            if next.is_none() {
                next = ended.recv().await;
            }
        }
    }

    /// Of several that cannot be written together, those that can be alone are.
    async fn write(&self, batch: &[Finished]) {
        if !self.try_write(batch).await && batch.len() > 1 {
            for one in batch.chunks(1) {
                self.try_write(one).await;
            }
        }
        for finished in batch {
            self.claims.drop(&finished.id);
        }
    }

    /// Goes on until it is written or cannot be: if the process ends before, the claim runs out and the delivery is tried
    /// again.
    async fn try_write(&self, batch: &[Finished]) -> bool {
        let jitter = rand::random();
        let write = || finishing::finish(&self.pools.work, &self.claimer, batch, &self.backoff, jitter);
        loop {
            match self.pools.bounded(Box::pin(write())).await {
                Ok(written) => {
                    if written.is_over {
                        self.finished.notify_one();
                    }
                    if written.is_more {
                        self.more.notify_one();
                    }
                    return true;
                }
                Err(error) if ::store::is_away(&error) => tokio::time::sleep(WRITE_AGAIN).await,
                Err(error) => {
                    let attempts = batch.len();
                    tracing::error!(%error, attempts, "cannot write down how attempts ended");
                    return false;
                }
            }
        }
    }
}
