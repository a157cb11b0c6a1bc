//! What became of a stream's messages, as their readers said. Pure: which messages are counted, and each only once.
//!
//! Messages are known by their sequence. Those that are counted are kept as ranges, which grow together as gaps close: what
//! is delivered again is found in them, and so is what was never answered for.

use serde::{Deserialize, Serialize};

/// Ranges above which the settled beginning is closed.
const MOST_RANGES: usize = 256;

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Stored or handled.
    Stored,
    /// Kept as a dead letter.
    Dead,
    /// Nothing was in it to be stored.
    Passed,
    /// Acknowledged, and counted by nobody.
    Unexplained,
}

/// Messages, and the items inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(crate) messages: u64,
    pub(crate) items: u64,
}

/// The account of one stream since it was made, or since counting began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// When the stream was made, Unix nanoseconds. Another one of the same name begins anew.
    pub(crate) created: u64,
    /// Messages that were acknowledged before anybody counted.
    pub(crate) uncounted: u64,
    pub(crate) stored: Sum,
    pub(crate) dead: Sum,
    pub(crate) passed: u64,
    /// Messages that nobody counted before they were acknowledged.
    #[serde(default)]
    pub(crate) unexplained: u64,
    /// Up to here everything is settled, and kept in no range.
    pub(crate) closed: u64,
    /// Counted sequences above `closed`: first and last of each range, in order, never touching.
    done: Vec<(u64, u64)>,
    /// What only a newer release counts stays as it is.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

impl Tally {
    /// Counting begins after `acknowledged`.
    pub(crate) fn begin(created: u64, acknowledged: u64) -> Self {
        Self { created, uncounted: acknowledged, closed: acknowledged, ..Self::default() }
    }

    /// Counts a message, unless it was counted before; says whether.
    pub(crate) fn add(&mut self, sequence: u64, fate: Fate, items: u64) -> bool {
        if sequence <= self.closed || !self.insert(sequence) {
            return false;
        }
        let sum = match fate {
            Fate::Stored => &mut self.stored,
            Fate::Dead => &mut self.dead,
            Fate::Passed => {
                self.passed += 1;
                return true;
            }
            Fate::Unexplained => {
                self.unexplained += 1;
                return true;
            }
        };
        sum.messages += 1;
        sum.items += items;
        true
    }

    fn insert(&mut self, sequence: u64) -> bool {
        let next = self.done.partition_point(|(first, _)| *first <= sequence);
        let before = next.checked_sub(1).and_then(|index| self.done.get(index)).copied();
        if before.is_some_and(|(_, last)| last >= sequence) {
            return false;
        }
        let joins_before = before.is_some_and(|(_, last)| last + 1 == sequence);
        let joins_next = self.done.get(next).is_some_and(|(first, _)| *first == sequence + 1);
        match (joins_before, joins_next) {
            (true, true) => {
                let (_, last) = self.done.remove(next);
                self.done[next - 1].1 = last;
            }
            (true, false) => self.done[next - 1].1 = sequence,
            (false, true) => self.done[next].0 = sequence,
            (false, false) => self.done.insert(next, (sequence, sequence)),
        }
        true
    }

    /// Whether there are so many ranges that the settled ones should be closed.
    pub(crate) fn is_long(&self) -> bool {
        self.done.len() > MOST_RANGES
    }

    /// Settles everything up to `sequence`: what is not counted by now never will be.
    pub(crate) fn close(&mut self, sequence: u64) {
        if sequence <= self.closed {
            return;
        }
        self.unexplained += self.open(self.closed + 1, sequence);
        self.closed = sequence;
        self.done.retain_mut(|range| {
            range.0 = range.0.max(sequence + 1);
            range.0 <= range.1
        });
    }

    /// Those of the sequences from `first` to `last` that are not counted, `most` at the most.
    pub(crate) fn uncounted(&self, first: u64, last: u64, most: usize) -> Vec<u64> {
        let first = first.max(self.closed + 1);
        let is_open = |sequence: &u64| self.open(*sequence, *sequence) > 0;
        (first..=last).filter(is_open).take(most).collect()
    }

    /// How many of the sequences from `first` to `last` are not counted.
    pub(crate) fn open(&self, first: u64, last: u64) -> u64 {
        let first = first.max(self.closed + 1);
        if first > last {
            return 0;
        }
        let counted: u64 =
            self.done.iter().map(|(from, to)| ((*to).min(last) + 1).saturating_sub((*from).max(first))).sum();
        last - first + 1 - counted
    }

    /// The newest message that is counted.
    pub(crate) fn newest(&self) -> u64 {
        self.done.last().map_or(self.closed, |(_, last)| *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(sequences: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for sequence in sequences {
            tally.add(*sequence, Fate::Stored, 10);
        }
        tally
    }

    #[test]
    fn a_message_is_counted_once_in_whatever_order_and_however_often_it_comes() {
        let tally = stored(&[3, 1, 2, 2, 7, 5, 3, 6, 1]);
        assert_eq!(tally.stored, Sum { messages: 6, items: 60 });
        assert_eq!(tally.done, [(1, 3), (5, 7)]);
        assert_eq!((tally.open(1, 7), tally.open(4, 4), tally.open(5, 9), tally.newest()), (1, 1, 2, 7));
    }

    #[test]
    fn what_is_closed_without_a_count_is_unexplained_and_stays_so() {
        let mut tally = stored(&[1, 2, 5, 6, 9]);
        tally.close(5);
        assert_eq!((tally.unexplained, tally.done.as_slice()), (2, [(6, 6), (9, 9)].as_slice()));
        assert!(!tally.add(4, Fate::Stored, 1) && !tally.add(6, Fate::Dead, 1));
        tally.close(3);
        assert_eq!((tally.unexplained, tally.closed, tally.stored.messages), (2, 5, 5));
    }

    #[test]
    fn what_a_newer_release_counts_is_kept() {
        let newer = r#"{"created":1,"uncounted":0,"stored":{"messages":1,"items":10},"dead":{"messages":0,"items":0},
            "passed":0,"unexplained":0,"closed":1,"done":[],"lent":{"messages":7}}"#;
        let mut tally: Tally = serde_json::from_str(newer).unwrap();
        assert!(tally.add(2, Fate::Stored, 5));
        let written = serde_json::to_value(&tally).unwrap();
        assert_eq!((written["lent"]["messages"].as_u64(), written["stored"]["items"].as_u64()), (Some(7), Some(15)));
    }

    #[test]
    fn fates_are_counted_apart() {
        let mut tally = Tally::begin(1, 10);
        assert!(!tally.add(10, Fate::Stored, 5));
        assert!(tally.add(11, Fate::Dead, 5) && tally.add(12, Fate::Passed, 0));
        assert_eq!((tally.uncounted, tally.dead.items, tally.passed, tally.stored.messages), (10, 5, 1, 0));
        assert_eq!((tally.open(1, 12), tally.open(1, 14)), (0, 2));
    }
}
