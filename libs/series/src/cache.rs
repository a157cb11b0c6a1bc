//! What was prepared, by what it was prepared from: bounded in bytes, and without a cliff.
//!
//! Series are reported in rounds, which is the worst there is for a cache that forgets what was used longest ago: one series
//! more than there is room for, and nothing is ever found again. So what is reported keeps its place, and whoever comes
//! when all places are taken is prepared each time. With room for two thirds of the series, two thirds are found. A place
//! falls free when what has it was not reported for [`IDLE_SECONDS`], or was never reported again within
//! [`ONCE_SECONDS`]: a flood of series that come once gives way within minutes.

use model::HashedMap;

/// Longer than clients are silent.
const IDLE_SECONDS: u32 = 300;
/// Longer than the minute that SDKs let pass between two reports.
const ONCE_SECONDS: u32 = 90;
/// Places that are looked at for one newcomer, so that none costs more than a few steps.
const STEPS: usize = 8;
/// A place, its share of the index, and what the allocator adds.
const PLACE_BYTES: usize = 120;

/// What has a place in a [`Cache`].
pub(crate) trait Weighed {
    /// What it takes, about.
    fn bytes(&self) -> usize;
}

/// How a cache did since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Found.
    pub hits: u64,
    /// Not found, and prepared.
    pub misses: u64,
    /// Of the misses, those that there was no room to keep.
    pub unkept: u64,
    /// Forgotten for others.
    pub evicted: u64,
    /// Bytes that it takes now, about.
    pub bytes: usize,
    /// Entries that it has now.
    pub entries: usize,
}

impl std::ops::Add for CacheUse {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            unkept: self.unkept + other.unkept,
            evicted: self.evicted + other.evicted,
            bytes: self.bytes + other.bytes,
            entries: self.entries + other.entries,
        }
    }
}

struct Place<V> {
    hash: u64,
    key: Box<[u8]>,
    value: V,
    bytes: usize,
    /// When it was used last, in the caller's seconds.
    used: u32,
    /// When it was noted last.
    round: u32,
    again: bool,
}

impl<V> Place<V> {
    fn is_free(&self, now: u32) -> bool {
        let patience = if self.again { IDLE_SECONDS } else { ONCE_SECONDS };
        now.saturating_sub(self.used) >= patience
    }
}

pub(crate) struct Cache<V> {
    index: HashedMap<usize>,
    places: Vec<Place<V>>,
    hand: usize,
    round: u32,
    capacity: usize,
    usage: CacheUse,
    /// What was prepared last and not kept.
    passing: Option<V>,
}

/// What a key is found by.
pub(crate) fn hash_of(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

impl<V: Weighed> Cache<V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            index: HashedMap::default(),
            places: Vec::new(),
            hand: 0,
            round: 0,
            capacity,
            usage: CacheUse::default(),
            passing: None,
        }
    }

    pub(crate) fn usage(&self) -> CacheUse {
        CacheUse { entries: self.places.len(), ..self.usage }
    }

    /// What was prepared from exactly this key, else what `prepare` gives.
    pub(crate) fn get(&mut self, key: &[u8], now: u32, prepare: impl FnOnce() -> V) -> &V {
        match self.find(key, now) {
            Some(at) => self.at(at),
            None => self.insert(key, now, prepare()),
        }
    }

    /// The place of exactly this key, which counts as used.
    pub(crate) fn find(&mut self, key: &[u8], now: u32) -> Option<usize> {
        let at = *self.index.get(&hash_of(key))?;
        let place = &mut self.places[at];
        if *place.key != *key {
            return None;
        }
        self.usage.hits += 1;
        place.again |= place.used != now;
        place.used = now;
        Some(at)
    }

    /// What has a place that was just found.
    pub(crate) fn at(&self, place: usize) -> &V {
        &self.places[place].value
    }

    /// Keeps what was prepared from a key that was not found, if there is room; gives it in any case.
    pub(crate) fn insert(&mut self, key: &[u8], now: u32, value: V) -> &V {
        self.usage.misses += 1;
        let hash = hash_of(key);
        let bytes = PLACE_BYTES + key.len() + value.bytes();
        // Another key of the same hash keeps its place; that is as rare as it is harmless.
        if self.index.contains_key(&hash) || !self.make_room(bytes, now) {
            self.usage.unkept += 1;
            return self.passing.insert(value);
        }
        let at = self.places.len();
        self.index.insert(hash, at);
        self.usage.bytes += bytes;
        self.places.push(Place { hash, key: key.into(), value, bytes, used: now, again: false, round: 0 });
        &self.places[at].value
    }

    /// Counts a key that was not found, and of which nothing is kept.
    pub(crate) fn pass(&mut self) {
        self.usage.misses += 1;
        self.usage.unkept += 1;
    }

    /// Begins a round of [`note`](Self::note).
    pub(crate) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Notes that what has this place was given out in this round.
    pub(crate) fn note(&mut self, place: usize) {
        self.places[place].round = self.round;
    }

    /// Whether what the key with this hash stands for was noted in this round.
    pub(crate) fn is_in_round(&self, hash: u64) -> bool {
        self.index.get(&hash).is_some_and(|at| self.places[*at].round == self.round)
    }

    /// Whether the key with this hash has a place.
    pub(crate) fn has(&self, hash: u64) -> bool {
        self.index.contains_key(&hash)
    }

    /// Forgets all keys.
    pub(crate) fn clear(&mut self) {
        self.usage.evicted += self.places.len() as u64;
        self.usage.bytes = 0;
        self.index.clear();
        self.places.clear();
        self.hand = 0;
    }

    fn make_room(&mut self, bytes: usize, now: u32) -> bool {
        for _ in 0..STEPS {
            if self.usage.bytes + bytes <= self.capacity {
                return true;
            }
            let Some(place) = self.places.get(self.hand) else {
                self.hand = 0;
                continue;
            };
            if place.is_free(now) {
                self.evict(self.hand);
            } else {
                self.hand += 1;
            }
        }
        self.usage.bytes + bytes <= self.capacity
    }

    /// The last one moves to where it was.
    fn evict(&mut self, at: usize) {
        let place = self.places.swap_remove(at);
        self.index.remove(&place.hash);
        if let Some(moved) = self.places.get(at) {
            self.index.insert(moved.hash, at);
        }
        self.usage.bytes -= place.bytes;
        self.usage.evicted += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: usize = PLACE_BYTES + 8 + 8;

    impl Weighed for u64 {
        fn bytes(&self) -> usize {
            8
        }
    }

    /// How many of a round's keys were found.
    fn round(cache: &mut Cache<u64>, keys: std::ops::Range<u64>, now: u32) -> u64 {
        let before = cache.usage().hits;
        for key in keys {
            assert_eq!(*cache.get(&key.to_be_bytes(), now, || key), key);
        }
        cache.usage().hits - before
    }

    #[test]
    fn half_as_much_again_as_there_is_room_for_costs_a_third_not_all() {
        let mut cache = Cache::new(1_000 * ENTRY);
        for now in 0..60 {
            let found = round(&mut cache, 0..1_500, now * 10);
            assert_eq!(found, if now == 0 { 0 } else { 1_000 }, "in round {now}");
            assert!(cache.usage().bytes <= 1_000 * ENTRY);
        }
    }

    #[test]
    fn what_is_gone_makes_room_for_what_is_new() {
        let mut cache = Cache::new(1_000 * ENTRY);
        for now in 0..10 {
            round(&mut cache, 0..1_000, now * 10);
        }
        // A flood that comes once finds no room among what is alive, and takes none away.
        round(&mut cache, 5_000..9_000, 100);
        assert_eq!(round(&mut cache, 0..1_000, 110), 1_000);
        // Half of it is replaced by others.
        let now = 110 + IDLE_SECONDS;
        round(&mut cache, 0..500, now - 10);
        round(&mut cache, 1_000..1_500, now);
        // Those that met the living half are kept when they come again.
        round(&mut cache, 1_000..1_500, now);
        assert_eq!(round(&mut cache, 1_000..1_500, now + 10), 500);
        assert_eq!(round(&mut cache, 0..500, now + 10), 500);
        assert_eq!(cache.usage().evicted, 500);
    }

    #[test]
    fn what_comes_once_gives_way_sooner() {
        let mut cache = Cache::new(10 * ENTRY);
        round(&mut cache, 0..10, 0);
        round(&mut cache, 0..5, 10);
        round(&mut cache, 20..25, ONCE_SECONDS);
        assert_eq!(round(&mut cache, 20..25, ONCE_SECONDS + 1), 5);
        assert_eq!(round(&mut cache, 0..5, ONCE_SECONDS + 1), 5);
    }

    #[test]
    fn what_is_larger_than_all_is_given_and_not_kept() {
        let mut cache = Cache::new(10);
        assert_eq!(*cache.get(b"a", 0, || 7_u64), 7);
        let usage = cache.usage();
        assert_eq!((usage.unkept, usage.bytes, usage.entries), (1, 0, 0));
    }
}
