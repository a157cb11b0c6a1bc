//! Series that no rule is about, so that a sample of one costs a single look-up and the series itself nothing.
//!
//! A table of hashes of which each has one place: whoever comes to a place takes it, and a series that lost its place is
//! looked up among the rules once more. Nothing is ever wrong by it, since the whole hash is compared.

/// Places at first, and at the most: 8 MiB.
const FEWEST: usize = 1 << 12;
const MOST: usize = 1 << 20;

pub(super) struct Unwatched {
    places: Vec<u64>,
    taken: usize,
}

impl Default for Unwatched {
    fn default() -> Self {
        Self { places: vec![0; FEWEST], taken: 0 }
    }
}

impl Unwatched {
    /// Whether it is known that no rule is about the series. 0 stands for an empty place, and is never known.
    pub(super) fn has(&self, hash: u64) -> bool {
        hash != 0 && self.places[place(hash, self.places.len())] == hash
    }

    pub(super) fn add(&mut self, hash: u64) {
        if self.taken * 2 > self.places.len() && self.places.len() < MOST {
            let before = std::mem::take(&mut self.places);
            self.places = vec![0; before.len() * 4];
            self.taken = 0;
            before.into_iter().filter(|hash| *hash != 0).for_each(|hash| self.put(hash));
        }
        self.put(hash);
    }

    /// Rules changed: nothing is known any more.
    pub(super) fn clear(&mut self) {
        self.places.fill(0);
        self.taken = 0;
    }

    fn put(&mut self, hash: u64) {
        let index = place(hash, self.places.len());
        if self.places[index] == 0 {
            self.taken += 1;
        }
        self.places[index] = hash;
    }
}

/// The number of places is a power of two.
fn place(hash: u64, places: usize) -> usize {
    usize::try_from(hash & (MOST as u64 - 1)).unwrap_or(0) & (places - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_known_until_rules_change_and_nothing_else_ever_is() {
        let mut unwatched = Unwatched::default();
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in 1..100_000 {
            unwatched.add(hash(n));
        }
        let known = (1..100_000).filter(|n| unwatched.has(hash(*n))).count();
        assert!(known > 60_000 && unwatched.places.len() > FEWEST, "{known} are known");
        assert!((100_000..200_000).all(|n| !unwatched.has(hash(n))));
        unwatched.clear();
        assert!((0..100_000).all(|n| !unwatched.has(hash(n))));
    }
}
