//! What is known of the store: which process it is, and what is on its disk for certain.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

const NOTE_EVERY: Duration = Duration::from_secs(5);
/// Three times what the store can lose.
pub(crate) const MARGIN: Duration = Duration::from_secs(30);

/// Up to where, in each shard, everything had been answered at a time.
#[derive(Debug, Clone)]
struct Note {
    at: Instant,
    stored: Vec<u64>,
}

/// What a watcher leaves for the next one: which process of the store was seen to, and what is on its disk for certain.
#[derive(Serialize, Deserialize)]
struct Left {
    /// As it is written, since nothing may be rounded.
    start: String,
    certain: Vec<u64>,
}

/// The store as it was seen last.
pub(crate) struct Known {
    start: f64,
    since: Instant,
    alive: Instant,
    notes: VecDeque<Note>,
}

impl Known {
    /// A process of the store, and what is certain of it.
    pub(crate) fn new(start: f64, stored: Vec<u64>) -> Self {
        let now = Instant::now();
        Self { start, since: now, alive: now, notes: VecDeque::from([Note { at: now, stored }]) }
    }

    /// A process of the store that does not have yet what the one before may have lost.
    pub(crate) fn unfinished(certain: Vec<u64>) -> Self {
        Self::new(f64::NAN, certain)
    }

    /// This process of the store, if it is the one that another watcher has left: what that one was certain of is all that
    /// is certain, since what was answered meanwhile may not be on the disk yet.
    pub(crate) fn taken_over(start: f64, left: &str) -> Option<Self> {
        let left: Left = serde_json::from_str(left).ok()?;
        (left.start == start.to_string()).then(|| Self::new(start, left.certain))
    }

    /// What is left for the next watcher; nothing of a store that still has to be seen to.
    pub(crate) fn left(&self) -> Option<String> {
        let left = Left { start: self.start.to_string(), certain: self.certain() };
        if self.is_unfinished() { None } else { serde_json::to_string(&left).ok() }
    }

    pub(crate) fn is_unfinished(&self) -> bool {
        self.start.is_nan()
    }

    pub(crate) fn is(&self, start: f64) -> bool {
        self.start.total_cmp(&start).is_eq()
    }

    /// It was just seen alive.
    pub(crate) fn seen(&mut self) {
        self.alive = Instant::now();
    }

    /// Whether it has lived for so long that what it answers now says something about its disk.
    pub(crate) fn is_settled(&self) -> bool {
        self.since.elapsed() >= MARGIN
    }

    pub(crate) fn note(&mut self, stored: Vec<u64>) {
        self.notes.push_back(Note { at: self.alive, stored });
        // One note older than the margin is enough.
        while self.notes.get(1).is_some_and(|second| self.alive.duration_since(second.at) >= MARGIN) {
            self.notes.pop_front();
        }
    }

    /// What is on the store's disk for certain: the oldest note, which is as old as the margin where there is one.
    pub(crate) fn certain(&self) -> Vec<u64> {
        self.notes.front().map(|note| note.stored.clone()).unwrap_or_default()
    }

    pub(crate) fn wants_note(&self) -> bool {
        self.notes.back().is_none_or(|note| note.at.elapsed() >= NOTE_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_certain_is_as_old_as_the_margin() {
        let mut known = Known::new(1.0, vec![1]);
        let begun = known.alive;
        for seconds in 1..=12_u64 {
            known.alive = begun + NOTE_EVERY * u32::try_from(seconds).expect("small");
            known.note(vec![seconds + 1]);
        }
        // Notes are 5 s apart and the newest is 60 s old, number 13.
        assert_eq!(known.certain(), vec![7]);
        assert!(known.notes.len() <= 8);
    }

    #[test]
    fn a_store_that_is_not_seen_to_is_none_that_is_known() {
        let known = Known::unfinished(vec![3]);
        assert!(known.is_unfinished() && !known.is(1.0));
        assert_eq!(known.certain(), vec![3]);
    }

    #[test]
    fn who_takes_over_is_certain_of_no_more_than_who_was_there_before() {
        let mut known = Known::new(1_763_697_600.25, vec![3, 4]);
        known.note(vec![90, 91]);
        let left = known.left().expect("it was seen to");
        let mut next = Known::taken_over(1_763_697_600.25, &left).expect("the same store");
        assert_eq!(next.certain(), vec![3, 4]);
        next.note(vec![95, 96]);
        assert_eq!(next.certain(), vec![3, 4]);
        assert!(Known::taken_over(1_763_697_601.0, &left).is_none());
        assert!(Known::taken_over(1.0, "").is_none());
        assert_eq!(Known::unfinished(vec![3]).left(), None);
    }

    #[test]
    fn a_store_that_was_just_met_has_only_its_first_note() {
        let mut known = Known::new(1.0, vec![40]);
        known.alive += NOTE_EVERY;
        known.note(vec![90]);
        assert_eq!(known.certain(), vec![40]);
    }
}
