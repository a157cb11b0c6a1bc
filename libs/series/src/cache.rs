//! Prepared series by what they were prepared from, bounded.
//!
//! Two generations: when the young one is full it becomes the old one and the old one is dropped; what is found in the old
//! one moves over. So a series that is still reported stays, at the price of one lookup more a generation.

use std::collections::hash_map;
use std::sync::Arc;

use model::HashedMap;

use crate::labels::Series;

/// Series of one point's bytes.
#[derive(Clone)]
pub(crate) enum Prepared {
    /// Of a gauge or sum.
    One(Arc<Series>),
    /// Of a histogram or summary.
    Several(Arc<[Arc<Series>]>),
}

impl Prepared {
    pub(crate) fn as_slice(&self) -> &[Arc<Series>] {
        match self {
            Self::One(series) => std::slice::from_ref(series),
            Self::Several(series) => series,
        }
    }
}

struct Entry {
    key: Box<[u8]>,
    prepared: Prepared,
}

pub(crate) struct Cache {
    young: HashedMap<Entry>,
    old: HashedMap<Entry>,
    /// Of the young generation, about.
    bytes: usize,
    capacity: usize,
}

impl Entry {
    /// What it takes, with its share of the map and of what the allocator adds.
    fn bytes(&self) -> usize {
        let series = self.prepared.as_slice().iter().map(|series| series.encoded().len() + 80);
        self.key.len() + 120 + series.sum::<usize>()
    }
}

impl Cache {
    /// Holds at most about twice `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { young: HashedMap::default(), old: HashedMap::default(), bytes: 0, capacity }
    }

    /// What was prepared from exactly this key, else what `prepare` gives.
    pub(crate) fn get(&mut self, key: &[u8], prepare: impl FnOnce() -> Prepared) -> &[Arc<Series>] {
        let hash = xxhash_rust::xxh3::xxh3_64(key);
        if self.bytes >= self.capacity && !self.young.contains_key(&hash) {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        let old = &mut self.old;
        let bytes = &mut self.bytes;
        let fresh = || {
            let entry = match old.remove(&hash) {
                Some(entry) if *entry.key == *key => entry,
                _ => Entry { key: key.into(), prepared: prepare() },
            };
            *bytes += entry.bytes();
            entry
        };
        let entry = match self.young.entry(hash) {
            hash_map::Entry::Vacant(vacant) => vacant.insert(fresh()),
            hash_map::Entry::Occupied(occupied) => {
                let entry = occupied.into_mut();
                if *entry.key != *key {
                    *entry = fresh();
                }
                entry
            }
        };
        entry.prepared.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(cache: &mut Cache, key: &str) -> bool {
        let mut asked = false;
        cache.get(key.as_bytes(), || {
            asked = true;
            Prepared::Several(Arc::new([]))
        });
        asked
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        // Two entries of a one-letter key.
        let mut cache = Cache::new(2 * 121);
        assert!(asks(&mut cache, "a"));
        assert!(asks(&mut cache, "b"));
        assert!(asks(&mut cache, "c"), "a full generation grows old here");
        assert!(!asks(&mut cache, "a"), "found in the old generation");
        assert!(asks(&mut cache, "d"), "and a generation later");
        assert!(!asks(&mut cache, "a"));
        assert!(asks(&mut cache, "b"), "was never used again");
        assert!(cache.young.len() + cache.old.len() <= 4);
    }
}
