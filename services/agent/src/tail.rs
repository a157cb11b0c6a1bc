//! Follows log files and hands every new line to the spool exactly once.
//!
//! Files are looked at every [`POLL_INTERVAL`]: two system calls a file, on every file system, with no limits on
//! watches and no events to lose. A file's
//! lines go into a batch together with the places that they reach to; once that batch is in the spool the places
//! count as read, and only then.
//! While the spool is full nothing is read: the lines stay where they are, in their files.

mod file;
mod follower;
mod harvest;
pub mod lines;
pub mod positions;
mod records;
mod severity;

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::spool::{Refused, Signal, Spool};
use follower::Follower;
pub use harvest::{Found, Harvest};
use positions::{Cover, Positions};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How often a batch that found no room is offered again, besides whenever a batch leaves the spool.
const OFFER_INTERVAL: Duration = Duration::from_secs(1);
/// At the end not more than this many batches are read, so that a file that grows fast cannot hold up the stop.
const LAST_BATCHES: usize = 64;

/// What happened to files since the last poll.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub rotations: u64,
    pub truncations: u64,
}

#[derive(Debug)]
pub struct Tail {
    followers: Vec<Follower>,
    positions: Arc<Positions>,
}

impl Tail {
    /// Finds where to begin in each file and saves it: after a crash the next start must not take the end of a file
    /// that has grown meanwhile.
    pub fn open(paths: &[String], positions: Arc<Positions>, now: Instant) -> Self {
        let followers = paths.iter().map(|path| Follower::open(path, &positions, now)).collect();
        if let Err(error) = positions.save() {
            tracing::error!(%error, "cannot save log positions");
        }
        Self { followers, positions }
    }

    /// What is new since the last poll, up to the size of a batch.
    pub fn poll(&mut self, now: Instant) -> (Harvest, Counts) {
        let mut harvest = Harvest::default();
        let mut counts = Counts::default();
        for follower in &mut self.followers {
            follower.poll(&mut harvest, &self.positions, &mut counts, now);
        }
        // The file that filled the batch goes last in the next one, so that it cannot starve the others.
        if harvest.is_full() && !self.followers.is_empty() {
            self.followers.rotate_left(1);
        }
        (harvest, counts)
    }
}

/// A batch of log records that the spool has not taken yet.
struct Batch {
    items: usize,
    payload: Vec<u8>,
    covers: Vec<Cover>,
    finished: Vec<Cover>,
}

enum Forwarded {
    /// Everything that was there.
    All,
    /// One full batch; there may be more.
    Some,
    /// The spool has no room, or the disk has not.
    Stuck,
}

/// Carries lines from files into the spool.
pub struct Forwarder {
    pub tail: Tail,
    pub spool: Arc<Spool>,
    pub identity: Arc<Identity>,
    pub metrics: Arc<Metrics>,
    waiting: Option<Batch>,
}

impl Forwarder {
    pub fn new(tail: Tail, spool: Arc<Spool>, identity: Arc<Identity>, metrics: Arc<Metrics>) -> Self {
        Self { tail, spool, identity, metrics, waiting: None }
    }

    /// Runs until `stop`, then takes in what is there at that moment.
    ///
    /// # Errors
    /// The thread that reads files panicked.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                _ = ticks.tick() => false,
                () = stop.cancelled() => true,
            };
            for _ in 0..LAST_BATCHES {
                let forwarded;
                (self, forwarded) = tokio::task::spawn_blocking(move || {
                    let forwarded = self.forward();
                    (self, forwarded)
                })
                .await?;
                match forwarded {
                    Forwarded::All => break,
                    Forwarded::Some => {}
                    Forwarded::Stuck if last => break,
                    Forwarded::Stuck => self.wait_for_room(&stop).await,
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    async fn wait_for_room(&self, stop: &CancellationToken) {
        let mut changes = self.spool.changes();
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(OFFER_INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }

    fn forward(&mut self) -> Forwarded {
        let mut full = true;
        if self.waiting.is_none() {
            let (harvest, counts) = self.tail.poll(Instant::now());
            full = harvest.is_full();
            self.count(&harvest, counts);
            self.waiting = self.batch(harvest);
        }
        let Some(batch) = self.waiting.take() else { return Forwarded::All };
        if let Err(refused) = self.spool.push(Signal::Logs, batch.items, &batch.covers, &batch.payload) {
            self.metrics.tail_stalls.inc();
            match refused {
                Refused::Full => tracing::warn!("the spool is full, log files are read on when there is room"),
                Refused::Write(error) => {
                    tracing::error!(%error, "cannot write to the spool, log files are read on when that works");
                }
            }
            self.waiting = Some(batch);
            return Forwarded::Stuck;
        }
        self.tail.positions.forget(&batch.finished);
        if full { Forwarded::Some } else { Forwarded::All }
    }

    fn batch(&self, harvest: Harvest) -> Option<Batch> {
        let Harvest { lines, covers, finished, .. } = harvest;
        if lines.is_empty() {
            self.tail.positions.forget(&finished);
            return None;
        }
        let payload = records::request(&self.identity, &lines, clock::unix_nanos()).encode_to_vec();
        Some(Batch { items: lines.len(), payload, covers, finished })
    }

    fn count(&self, harvest: &Harvest, counts: Counts) {
        let lines = || harvest.lines.iter().map(|found| &found.line);
        self.metrics.log_lines.inc_by(harvest.lines.len() as u64);
        self.metrics.log_lines_cut.inc_by(lines().filter(|line| line.cut).count() as u64);
        self.metrics.log_lines_invalid.inc_by(lines().filter(|line| line.invalid).count() as u64);
        self.metrics.log_rotations.inc_by(counts.rotations);
        self.metrics.log_truncations.inc_by(counts.truncations);
    }
}

#[cfg(test)]
mod tests;
