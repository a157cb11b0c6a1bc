//! Which instrument a stored series belongs to.
//!
//! Translation to stored names loses what tells `x.y` from `x_y`, of metrics as of attributes. Two of them that report at
//! the same time must not become one series with two values: the first one that is seen has the series for as long as it
//! reports, and the points of the other are passed over and counted ([`crate::Skip::NameTaken`]). An instrument that was
//! renamed gets the series when the old name falls silent.

use model::HashedMap;

use crate::cache::{Cache, Weighed};

/// Fewer are not worth looking through.
const LEAST: usize = 4096;

#[derive(Clone, Copy)]
struct Owner {
    /// Hash of what the client calls it.
    origin: u64,
    /// Where the cache has it.
    key: u64,
}

/// Owners of series, by the series' hash.
pub(crate) struct Owners {
    by_series: HashedMap<Owner>,
    /// So many there may be before those are dropped that the cache has forgotten.
    limit: usize,
}

impl Default for Owners {
    fn default() -> Self {
        Self { by_series: HashedMap::default(), limit: LEAST }
    }
}

impl Owners {
    /// Whether all of these series may belong to `origin`, which the cache is about to have under `key`; then they do.
    pub(crate) fn claim<V: Weighed>(
        &mut self,
        series: impl Iterator<Item = u64> + Clone,
        origin: u64,
        key: u64,
        cache: &mut Cache<V>,
        now: u32,
    ) -> bool {
        let others = |owners: &Self, series| {
            owners.by_series.get(&series).copied().filter(|owner: &Owner| owner.origin != origin)
        };
        let is_taken = |series| others(self, series).is_some_and(|owner| cache.is_alive(owner.key, now));
        if series.clone().any(is_taken) {
            return false;
        }
        for series in series {
            if let Some(silent) = others(self, series) {
                cache.forget(silent.key);
            }
            self.by_series.insert(series, Owner { origin, key });
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
    use crate::cache::hash_of;

    fn claim(owners: &mut Owners, cache: &mut Cache<u64>, origin: u64, key: &str, now: u32) -> bool {
        let claimed = owners.claim([7].into_iter(), origin, hash_of(key.as_bytes()), cache, now);
        if claimed && cache.find(key.as_bytes(), now).is_none() {
            cache.insert(key.as_bytes(), now, origin);
        }
        claimed
    }

    #[test]
    fn the_first_has_the_series_until_it_falls_silent() {
        let (mut owners, mut cache) = (Owners::default(), Cache::new(10_000));
        assert!(claim(&mut owners, &mut cache, 1, "x.y", 0));
        assert!(!claim(&mut owners, &mut cache, 2, "x_y", 10));
        assert!(claim(&mut owners, &mut cache, 1, "x.y in other bytes", 20));
        assert!(!claim(&mut owners, &mut cache, 2, "x_y", 100));
        assert!(claim(&mut owners, &mut cache, 2, "x_y", 200));
        assert!(!claim(&mut owners, &mut cache, 1, "x.y in other bytes", 210));
    }

    #[test]
    fn what_the_cache_forgot_is_forgotten() {
        let (mut owners, mut cache) = (Owners::default(), Cache::<u64>::new(0));
        for series in 0..100_000 {
            assert!(owners.claim([series].into_iter(), series, series, &mut cache, 0));
        }
        assert!(owners.by_series.len() <= LEAST + 1);
    }
}
