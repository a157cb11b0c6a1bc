//! All log files that are followed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::counts::Counts;
use super::follower::{Follower, Round};
use super::harvest::Harvest;
use super::options::Options;
use crate::clock;
use crate::positions::Positions;

#[derive(Debug)]
pub struct Tail {
    followers: Vec<Follower>,
    pub positions: Arc<Positions>,
    options: Options,
    /// Of files that were opened, until the next poll tells.
    counts: Counts,
}

impl Tail {
    /// Finds where to begin in each file and saves it: after a crash the next start must not take the end of a file
    /// that has grown meanwhile.
    pub fn open(paths: &[String], positions: Arc<Positions>, options: Options, now: Instant) -> Self {
        let mut tail = Self { followers: Vec::new(), positions, options, counts: Counts::default() };
        for path in paths {
            let taken = tail.open_files();
            let Self { options, positions, counts, .. } = &mut tail;
            let follower = Follower::open(path, &mut Round { options, positions, counts, now, taken: &taken });
            tail.followers.push(follower);
        }
        tail.tidy();
        tail
    }

    /// What is new since the last poll, up to the size of a request.
    pub fn poll(&mut self, harvest: &mut Harvest, now: Instant) -> Counts {
        let mut open = self.open_files();
        let mut counts = std::mem::take(&mut self.counts);
        for follower in &mut self.followers {
            if let Some(own) = follower.current() {
                open.remove(&own);
            }
            let mut round =
                Round { options: &self.options, positions: &self.positions, counts: &mut counts, now, taken: &open };
            follower.poll(harvest, &mut round);
            open.extend(follower.current());
        }
        counts.unreadable = self.followers.iter().filter(|follower| follower.is_unreadable()).count() as u64;
        counts.missing = self.followers.iter().filter(|follower| follower.is_missing()).count() as u64;
        // The file that filled the request goes last in the next one, so that it cannot starve the others.
        if harvest.is_full() && !self.followers.is_empty() {
            self.followers.rotate_left(1);
        }
        counts
    }

    /// Saves that open files are still there, and forgets those that have long been gone.
    pub fn tidy(&self) {
        self.followers.iter().flat_map(Follower::covers).for_each(|cover| self.positions.touch(&cover));
        let age = u64::try_from(self.options.forget_after.as_millis()).unwrap_or(u64::MAX);
        let before = clock::unix_millis().saturating_sub(age);
        let open = |position: &_| self.followers.iter().any(|follower| follower.has_open(position));
        let forgotten = self.positions.forget_unseen(before, open);
        if forgotten > 0 {
            tracing::info!(files = forgotten, "places in log files that have long been gone are forgotten");
        }
        if let Err(error) = self.positions.save().and_then(|()| self.positions.back_up()) {
            tracing::error!(%error, "cannot save log positions");
        }
    }

    fn open_files(&self) -> HashSet<(u64, u64)> {
        self.followers.iter().filter_map(Follower::current).collect()
    }
}
