//! The batches that were seen last, for readers that count what passes by.

use std::collections::{HashSet, VecDeque};

use crate::series_hash;

/// A client that heard no answer repeats within seconds, often through another gateway.
const REMEMBERED: usize = 4_096;

/// Parts of batches that were seen lately, in the order in which they came.
///
/// Who stores asks its store whether it has a part; who only reads the stream asks this. What is read again from the same
/// place, with what was remembered there, is judged alike.
#[derive(Debug, Clone, Default)]
pub struct RecentBatches {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl RecentBatches {
    /// Whether this part of a batch was not seen lately; from now on it was.
    pub fn is_new(&mut self, tenant: &str, batch: &str, part: i64) -> bool {
        self.insert(series_hash([(tenant, batch), ("part", part.to_string().as_str())]))
    }

    fn insert(&mut self, part: u64) -> bool {
        if !self.known.insert(part) {
            return false;
        }
        self.order.push_back(part);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// What to keep, so that [`FromIterator`] makes the same again.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.order.iter().copied()
    }
}

impl FromIterator<u64> for RecentBatches {
    fn from_iter<I: IntoIterator<Item = u64>>(parts: I) -> Self {
        let mut recent = Self::default();
        for part in parts {
            recent.insert(part);
        }
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_new_once() {
        let mut recent = RecentBatches::default();
        assert!(recent.is_new("a", "batch", 0));
        assert!(recent.is_new("a", "batch", 1));
        assert!(recent.is_new("b", "batch", 0));
        assert!(!recent.is_new("a", "batch", 1));
        let mut kept: RecentBatches = recent.iter().collect();
        assert!(!kept.is_new("b", "batch", 0));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recent: RecentBatches = (0..REMEMBERED as u64 + 1).collect();
        assert_eq!(recent.order.len(), REMEMBERED);
        assert_eq!(recent.known.len(), REMEMBERED);
        assert!(recent.insert(0));
        assert!(!recent.insert(2));
    }
}
