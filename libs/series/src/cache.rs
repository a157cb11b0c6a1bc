//! Prepared series by what they were prepared from, bounded.
//!
//! Two generations: when the young one is full it becomes the old one and the old one is dropped; what is found in the old
//! one moves over. So a series that is still reported stays, at the price of one lookup more a generation.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use crate::labels::Series;

/// Series of one point's bytes: one for gauges and sums, several for histograms and summaries.
pub(crate) type Prepared = Arc<[Arc<Series>]>;

struct Entry {
    key: Box<[u8]>,
    prepared: Prepared,
}

/// Keys are hashes already.
#[derive(Default)]
pub(crate) struct Identity(u64);

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Generation = HashMap<u64, Entry, BuildHasherDefault<Identity>>;

pub(crate) struct Cache {
    young: Generation,
    old: Generation,
    capacity: usize,
}

impl Cache {
    /// Holds between `capacity` and twice `capacity` entries.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { young: Generation::default(), old: Generation::default(), capacity: capacity.max(1) }
    }

    /// What was prepared from exactly this key, else what `prepare` gives.
    pub(crate) fn get(&mut self, key: &[u8], prepare: impl FnOnce() -> Prepared) -> Prepared {
        let hash = xxhash_rust::xxh3::xxh3_64(key);
        if let Some(entry) = self.young.get(&hash)
            && *entry.key == *key
        {
            return Arc::clone(&entry.prepared);
        }
        let entry = match self.old.remove(&hash) {
            Some(entry) if *entry.key == *key => entry,
            _ => Entry { key: key.into(), prepared: prepare() },
        };
        let prepared = Arc::clone(&entry.prepared);
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, entry);
        prepared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(cache: &mut Cache, key: &str) -> bool {
        let mut asked = false;
        cache.get(key.as_bytes(), || {
            asked = true;
            Arc::new([])
        });
        asked
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut cache = Cache::new(2);
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
