//! Carries lines from files into the spool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::{CancellationToken, Ready};
use prost::Message as _;
use tokio::time::MissedTickBehavior;

use super::counts::Counts;
use super::harvest::Harvest;
use super::linger::{Linger, Waiting};
use super::logs::Tail;
use super::records;
use crate::identity::Identity;
use crate::metrics::{Metrics, gauge};
use crate::patience;
use crate::positions::Cover;
use crate::signal::Signal;
use crate::spool::{Refused, Spool};

/// How often a request that found no room is offered again, besides whenever one leaves the spool.
const OFFER_INTERVAL: Duration = Duration::from_secs(1);
/// At the end not more than this many requests are made, so that a file that grows fast cannot hold up the stop.
const LAST_REQUESTS: usize = 64;
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// Lines that are encoded and that the spool has not taken yet.
struct Encoded {
    items: usize,
    payload: Vec<u8>,
    covers: Vec<Cover>,
    finished: Vec<Cover>,
}

enum Forwarded {
    /// Everything that was there, or that need not wait for others.
    All,
    /// One full request; there may be more.
    Some,
    /// The spool has no room, or the disk has not.
    Stuck,
}

pub struct Forwarder {
    pub tail: Tail,
    pub spool: Arc<Spool>,
    pub identity: Arc<Identity>,
    pub metrics: Metrics,
    pub linger: Linger,
    pub poll_interval: Duration,
    gathered: Harvest,
    gathered_since: Option<Instant>,
    sent_last: Option<Instant>,
    refused: Option<Encoded>,
    tidied: Instant,
}

impl Forwarder {
    pub fn new(
        tail: Tail,
        spool: Arc<Spool>,
        identity: Arc<Identity>,
        metrics: Metrics,
        (linger, poll_interval): (Linger, Duration),
    ) -> Self {
        Self {
            tail,
            spool,
            identity,
            metrics,
            linger,
            poll_interval,
            gathered: Harvest::default(),
            gathered_since: None,
            sent_last: None,
            refused: None,
            tidied: Instant::now(),
        }
    }

    /// Runs until `stop`, then takes in what is there at that moment.
    ///
    /// # Errors
    /// The thread that reads files panicked.
    pub async fn run(mut self, ready: Ready, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(self.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                _ = ticks.tick() => false,
                () = stop.cancelled() => true,
            };
            for _ in 0..LAST_REQUESTS {
                let work = move || {
                    let forwarded = self.forward(Instant::now(), last);
                    (self, forwarded)
                };
                // What it held in its hands is still in the files.
                let Some(done) = patience::run(work, "log files", &ready, &stop).await? else { return Ok(()) };
                let forwarded;
                (self, forwarded) = done;
                match forwarded {
                    Forwarded::All => break,
                    Forwarded::Some => {}
                    Forwarded::Stuck if last => break,
                    Forwarded::Stuck => self.wait_for_room(&stop).await,
                }
            }
            if last {
                return patience::run(move || self.tail.tidy(), "log files", &ready, &stop).await.map(drop);
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

    fn forward(&mut self, now: Instant, last: bool) -> Forwarded {
        if now.saturating_duration_since(self.tidied) >= TIDY_INTERVAL {
            self.tidied = now;
            self.tail.tidy();
        }
        let mut full = true;
        let encoded = match self.refused.take() {
            Some(refused) => refused,
            None => {
                let before = self.gathered.lines.len();
                let counts = self.tail.poll(&mut self.gathered, now);
                self.count(before, counts);
                full = self.gathered.is_full();
                if self.lingers(now) && !last {
                    return Forwarded::All;
                }
                match self.encode() {
                    Some(encoded) => encoded,
                    None => return Forwarded::All,
                }
            }
        };
        if let Err(refused) = self.spool.push(Signal::Logs, encoded.items, &encoded.covers, &encoded.payload) {
            self.metrics.tail_stalls.inc();
            match refused {
                Refused::Full => tracing::warn!("the spool is full, log files are read on when there is room"),
                Refused::Write(error) => {
                    tracing::error!(%error, "cannot write to the spool, log files are read on when that works");
                }
            }
            self.refused = Some(encoded);
            return Forwarded::Stuck;
        }
        self.sent_last = Some(now);
        self.tail.positions.forget(&encoded.finished);
        if full { Forwarded::Some } else { Forwarded::All }
    }

    fn lingers(&mut self, now: Instant) -> bool {
        if self.gathered.lines.is_empty() {
            self.gathered_since = None;
            return false;
        }
        let waiting = Waiting {
            bytes: self.gathered.bytes(),
            since: *self.gathered_since.get_or_insert(now),
            last: self.sent_last,
            on_their_way: self.spool.pending(Signal::Logs),
        };
        !self.linger.is_over(waiting, now)
    }

    fn encode(&mut self) -> Option<Encoded> {
        self.gathered_since = None;
        let Harvest { lines, covers, finished, .. } = std::mem::take(&mut self.gathered);
        if lines.is_empty() {
            // Nothing to send, and so nothing to wait for.
            let positions = &self.tail.positions;
            if !covers.is_empty() {
                positions.apply(positions.next_generation(), &covers);
            }
            positions.forget(&finished);
            return None;
        }
        let payload = records::request(&self.identity, &lines).encode_to_vec();
        Some(Encoded { items: lines.len(), payload, covers, finished })
    }

    fn count(&self, before: usize, counts: Counts) {
        let lines = || self.gathered.lines.iter().skip(before).map(|found| &found.line);
        self.metrics.log_lines.inc_by(lines().count() as u64);
        self.metrics.log_lines_cut.inc_by(lines().filter(|line| line.cut).count() as u64);
        self.metrics.log_lines_invalid.inc_by(lines().filter(|line| line.invalid).count() as u64);
        self.metrics.log_rotations.inc_by(counts.rotations);
        self.metrics.log_truncations.inc_by(counts.truncations);
        self.metrics.log_guesses.inc_by(counts.guesses);
        self.metrics.log_files_unreadable.set(gauge(counts.unreadable));
        self.metrics.log_files_missing.set(gauge(counts.missing));
    }
}
