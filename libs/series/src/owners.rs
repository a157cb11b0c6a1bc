//! Which instrument a stored series belongs to.
//!
//! Translation to stored names loses what tells `x.y` from `x_y`, of metrics as of attributes. Two of them in one envelope
//! must not become one series with two values: the one that stands first in it has the series there, and the points of the
//! other are passed over and counted ([`crate::Skip::NameTaken`]). The envelope alone decides, so that whoever reads it, and
//! whenever, decides alike; and since a client reports all its instruments together, in one order, it is the same one each
//! time. What was seen before only says where to look: nearly all points are of instruments that nobody contests, and are
//! not looked at again.

use model::HashedMap;

use crate::cache::{Cache, Weighed};

/// Fewer are not worth looking through.
const LEAST: usize = 4096;
/// With more that are contested, all that was seen is forgotten.
const MOST_CONTESTED: usize = 1 << 16;

#[derive(Clone, Copy)]
struct Owner {
    /// Hash of what the client calls it, and where.
    origin: u64,
    /// Where the cache has it.
    key: u64,
}

/// Owners of series, by the series' hash.
pub(crate) struct Owners {
    /// Some instrument with that series; the one that nobody contests, where there is one.
    by_series: HashedMap<Owner>,
    /// Origins that share a series with others: what becomes of them in an envelope is in `had`.
    contested: HashedMap<()>,
    /// Further keys of origins that nobody contests: clients may write attributes in any order.
    several: HashedMap<Vec<u64>>,
    /// How many these are.
    keys: usize,
    /// Who has which series in this envelope; without those that nobody contests, which the cache knows.
    had: HashedMap<u64>,
    /// Whom nobody contested in this envelope until they had been given out.
    given: HashedMap<()>,
    /// So many owners or further keys there may be before those are dropped that the cache has forgotten.
    limit: usize,
}

impl Default for Owners {
    fn default() -> Self {
        let (by_series, contested, several, had, given) = Default::default();
        Self { by_series, contested, several, keys: 0, had, given, limit: LEAST }
    }
}

impl Owners {
    /// Begins an envelope.
    pub(crate) fn begin<V: Weighed>(&mut self, cache: &mut Cache<V>) {
        cache.begin_round();
        self.had.clear();
        self.given.clear();
        if self.contested.len() > MOST_CONTESTED {
            *self = Self::default();
            cache.clear();
        }
    }

    /// Whether what is called so has to claim its series in every envelope.
    pub(crate) fn is_contested(&self, origin: u64) -> bool {
        !self.contested.is_empty() && self.contested.contains_key(&origin)
    }

    /// Whether all of these series may belong to `origin` in this envelope; then they do. The cache has it under `key`, or is
    /// about to.
    pub(crate) fn claim<V: Weighed>(
        &mut self,
        series: impl Iterator<Item = u64> + Clone,
        origin: u64,
        key: u64,
        cache: &Cache<V>,
    ) -> bool {
        let (mut is_free, mut is_further_key) = (true, false);
        for series in series.clone() {
            is_free &= self.had.get(&series).is_none_or(|had| *had == origin);
            let Some(owner) = self.by_series.get(&series).copied() else { continue };
            if owner.origin == origin {
                is_further_key |= owner.key != key;
            } else {
                self.contest(owner, cache);
                self.contested.insert(origin, ());
                is_free &= !self.given.contains_key(&owner.origin);
            }
        }
        if !is_free {
            return false;
        }
        if is_further_key && !self.is_contested(origin) {
            self.several.entry(origin).or_default().push(key);
            self.keys += 1;
        }
        for series in series {
            self.had.insert(series, origin);
            let owner = self.by_series.entry(series).or_insert(Owner { origin, key });
            if !cache.has(owner.key) {
                *owner = Owner { origin, key };
            }
        }
        if self.by_series.len().max(self.keys) > self.limit {
            self.forget(key, cache);
        }
        true
    }

    /// From now on an owner has to claim its series.
    fn contest<V: Weighed>(&mut self, owner: Owner, cache: &Cache<V>) {
        if self.contested.insert(owner.origin, ()).is_none() {
            let further = self.several.remove(&owner.origin).unwrap_or_default();
            self.keys -= further.len();
            if further.into_iter().chain([owner.key]).any(|key| cache.is_in_round(key)) {
                self.given.insert(owner.origin, ());
            }
        }
    }

    /// Forgets what the cache has forgotten, but for `key`, which it is about to get.
    fn forget<V: Weighed>(&mut self, key: u64, cache: &Cache<V>) {
        let is_known = |known: u64| known == key || cache.has(known);
        self.several.retain(|_, keys| {
            keys.sort_unstable();
            keys.dedup();
            keys.retain(|key| is_known(*key));
            !keys.is_empty()
        });
        self.by_series.retain(|_, owner| is_known(owner.key) || self.several.contains_key(&owner.origin));
        self.keys = self.several.values().map(Vec::len).sum();
        self.limit = (2 * self.by_series.len().max(self.keys)).max(LEAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::hash_of;

    #[test]
    fn what_the_cache_forgot_is_forgotten() {
        let (mut owners, mut cache) = (Owners::default(), Cache::<u64>::new(0));
        for series in 0..100_000 {
            owners.begin(&mut cache);
            assert!(owners.claim([series].into_iter(), series, series, &cache));
        }
        assert!(owners.by_series.len() <= LEAST + 1);
    }

    #[test]
    fn attributes_in_any_order_contest_nobody() {
        let (mut owners, mut cache) = (Owners::default(), Cache::new(1 << 20));
        for key in 0..100_000_u64 {
            owners.begin(&mut cache);
            cache.insert(&key.to_be_bytes(), 0, key);
            assert!(owners.claim([7].into_iter(), 1, hash_of(&key.to_be_bytes()), &cache));
        }
        assert!(!owners.is_contested(1) && owners.keys > 1_000 && owners.keys <= 2 * cache.usage().entries + LEAST);
    }

    #[test]
    fn who_makes_names_that_are_stored_alike_takes_no_more_memory_for_it_than_so_much() {
        let (mut owners, mut cache) = (Owners::default(), Cache::<u64>::new(0));
        for origin in 0..300_000 {
            owners.begin(&mut cache);
            assert!(owners.claim([7].into_iter(), origin, origin, &cache));
        }
        assert!(owners.contested.len() <= MOST_CONTESTED + 2);
    }
}
