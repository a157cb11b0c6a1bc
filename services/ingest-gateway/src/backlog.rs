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
    lanes: Arc<[Watched]>,
    shards: u16,
}

/// One stream. Only those that are written to, or that are full, are looked at again.
struct Watched {
    full: AtomicBool,
    unseen: AtomicBool,
    used: AtomicBool,
}

impl Backlog {
    #[must_use]
    pub fn new(shards: u16) -> Self {
        // All of them are looked at once.
        let one =
            |_| Watched { full: AtomicBool::new(false), unseen: AtomicBool::new(false), used: AtomicBool::new(true) };
        Self { lanes: (0..usize::from(shards) * SIGNALS.len()).map(one).collect(), shards }
    }

    /// Passes when the lane's stream has room.
    ///
    /// # Errors
    /// Its writer is too far behind.
    pub fn check(&self, lane: &Lane) -> Result<(), Fault> {
        let Some(watched) = self.watched(lane.signal, lane.shard) else { return Ok(()) };
        watched.used.store(true, Ordering::Relaxed);
        if watched.full.load(Ordering::Relaxed) { Err(backlogged()) } else { Ok(()) }
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
                let is_idle = self.watched(signal, shard).is_some_and(|watched| {
                    !watched.used.swap(false, Ordering::Relaxed) && !watched.full.load(Ordering::Relaxed)
                });
                if is_idle {
                    continue;
                }
                let stream = match signal {
                    Signal::Metrics => Stream::Metrics(shard),
                    Signal::Logs => Stream::Logs(shard),
                    Signal::Processes => Stream::Processes(shard),
                };
                let looked = bus.backlog(stream).await;
                self.tell(signal, shard, &looked);
                // Without the broker nothing is taken anyway; what was known last stays.
                if let Ok(backlog) = looked {
                    self.set(signal, shard, backlog.must_refuse());
                }
            }
        }
    }

    /// Says once that a stream cannot be looked at: while the broker is there, it lacks a right.
    fn tell(&self, signal: Signal, shard: u16, looked: &anyhow::Result<bus::Backlog>) {
        let Some(watched) = self.watched(signal, shard) else { return };
        let was_unseen = watched.unseen.swap(looked.is_err(), Ordering::Relaxed);
        if let Err(error) = looked
            && !was_unseen
        {
            tracing::warn!(?signal, shard, error = format!("{error:#}"), "cannot see the backlog, nor make room");
        }
    }

    fn set(&self, signal: Signal, shard: u16, full: bool) {
        let Some(watched) = self.watched(signal, shard) else { return };
        if watched.full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::warn!(?signal, shard, "the writer is too far behind; new data is refused");
            } else {
                tracing::info!(?signal, shard, "the writer has caught up; data is taken again");
            }
        }
    }

    fn watched(&self, signal: Signal, shard: u16) -> Option<&Watched> {
        self.lanes.get(usize::from(shard) * SIGNALS.len() + signal as usize)
    }
}
