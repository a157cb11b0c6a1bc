//! Whether the writers keep up. When too much of a stream waits for its writer, new data for it is refused, so that nothing is
//! evicted before it is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus::{Bus, Stream};
use fault::Fault;
use lifecycle::CancellationToken;

use crate::collector::{Lane, backlogged};
use crate::metrics::Signal;

const EVERY: Duration = Duration::from_millis(500);
const SIGNALS: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Processes];

/// What the last look at the streams said. Clones share it.
#[derive(Clone)]
pub struct Backlog {
    full: Arc<[AtomicBool]>,
    shards: u16,
}

impl Backlog {
    #[must_use]
    pub fn new(shards: u16) -> Self {
        let full = (0..usize::from(shards) * SIGNALS.len()).map(|_| AtomicBool::new(false)).collect();
        Self { full, shards }
    }

    /// Passes when the lane's stream has room.
    ///
    /// # Errors
    /// Its writer is too far behind.
    pub fn check(&self, lane: &Lane) -> Result<(), Fault> {
        match self.flag(lane.signal, lane.shard) {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(backlogged()),
            _ => Ok(()),
        }
    }

    /// Looks at the streams until the process stops.
    ///
    /// # Errors
    /// None; the signature is a task's.
    pub async fn watch(self, bus: Bus, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopping.cancelled() => return Ok(()),
            }
            tokio::select! {
                () = self.look(&bus) => {}
                () = stopping.cancelled() => return Ok(()),
            }
        }
    }

    async fn look(&self, bus: &Bus) {
        for shard in 0..self.shards {
            for signal in SIGNALS {
                let stream = match signal {
                    Signal::Metrics => Stream::Metrics(shard),
                    Signal::Logs => Stream::Logs(shard),
                    Signal::Processes => Stream::Processes(shard),
                };
                match bus.backlog(stream).await {
                    Ok(backlog) => self.set(signal, shard, backlog.must_refuse()),
                    // Without the broker nothing is taken anyway; what was known last stays.
                    Err(error) => tracing::debug!(%stream, error = format!("{error:#}"), "cannot see the backlog"),
                }
            }
        }
    }

    fn set(&self, signal: Signal, shard: u16, full: bool) {
        let Some(flag) = self.flag(signal, shard) else { return };
        if flag.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::warn!(?signal, shard, "the writer is too far behind; new data is refused");
            } else {
                tracing::info!(?signal, shard, "the writer has caught up; data is taken again");
            }
        }
    }

    fn flag(&self, signal: Signal, shard: u16) -> Option<&AtomicBool> {
        self.full.get(usize::from(shard) * SIGNALS.len() + signal as usize)
    }
}
