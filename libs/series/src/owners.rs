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
    /// Hash of what the client calls it.
    origin: u64,
    /// Where the cache has it.
    key: u64,
}

/// Owners of series, by the series' hash.
pub(crate) struct Owners {
    /// Some instrument with that series; the one that nobody contests, where there is one.
    by_series: HashedMap<Owner>,
    /// Origins that share a series with others, or are written in several ways: what became of them in an envelope is in `had`.
    contested: HashedMap<()>,
    /// Who has which series in this envelope; without those that nobody contests, which the cache knows.
    had: HashedMap<u64>,
    /// So many owners there may be before those are dropped that the cache has forgotten.
    limit: usize,
}

impl Default for Owners {
    fn default() -> Self {
        let (by_series, contested, had) = Default::default();
        Self { by_series, contested, had, limit: LEAST }
    }
}

impl Owners {
    /// Begins an envelope.
    pub(crate) fn begin<V: Weighed>(&mut self, cache: &mut Cache<V>) {
        cache.begin_round();
        self.had.clear();
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
        let mut is_free = true;
        for series in series.clone() {
            is_free &= self.had.get(&series).is_none_or(|had| *had == origin);
            let Some(owner) = self.by_series.get(&series) else { continue };
            if owner.origin != origin {
                is_free &= !cache.is_in_round(owner.key);
                self.contested.insert(owner.origin, ());
            }
            if owner.origin != origin || owner.key != key {
                self.contested.insert(origin, ());
            }
        }
        if !is_free {
            return false;
        }
        for series in series {
            self.had.insert(series, origin);
            let owner = self.by_series.entry(series).or_insert(Owner { origin, key });
            if !cache.has(owner.key) {
                *owner = Owner { origin, key };
            }
        }
        if self.by_series.len() > self.limit {
            self.by_series.retain(|_, owner| owner.key == key || cache.has(owner.key));
            self.limit = (2 * self.by_series.len()).max(LEAST);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn who_makes_names_that_are_stored_alike_takes_no_more_memory_for_it_than_so_much() {
        let (mut owners, mut cache) = (Owners::default(), Cache::<u64>::new(0));
        for origin in 0..300_000 {
            owners.begin(&mut cache);
            assert!(owners.claim([7].into_iter(), origin, origin, &cache));
        }
        assert!(owners.contested.len() <= MOST_CONTESTED + 2);
    }
}
