//! How much a transaction takes while Postgres is slow, and which envelope is itself what takes too long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Envelopes that are remembered to have taken too long. Where there are more, it is not them.
const MOST_SLOW: usize = 64;
/// How often an envelope may take too long alone.
const MOST_TIMES: u32 = 2;

/// An envelope: its stream, its place, and when the broker took it.
pub(crate) type Name = (String, u64, u64);

/// Learned from transactions that ended and those that did not.
pub(crate) struct Pace {
    most: usize,
    weight: AtomicUsize,
    /// Transactions that ended.
    ended: AtomicU64,
    slow: Mutex<HashMap<Name, Slow>>,
}

struct Slow {
    times: u32,
    /// Transactions that had ended by the first time.
    ended: u64,
}

impl Pace {
    /// Transactions take `most` bytes as long as they end in time.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, weight: AtomicUsize::new(most), ended: AtomicU64::new(0), slow: Mutex::default() }
    }

    /// Bytes that a transaction takes now, but for its last envelope.
    pub(crate) fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }

    /// A transaction of these envelopes ended in time.
    pub(crate) fn ended<'a>(&self, names: impl Iterator<Item = &'a Name>) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.weight.store(self.weight().saturating_mul(2).min(self.most), Ordering::Relaxed);
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        if !slow.is_empty() {
            for name in names {
                slow.remove(name);
            }
        }
    }

    /// A transaction of several envelopes, `bytes` in all, took too long.
    pub(crate) fn too_long(&self, bytes: usize) {
        self.weight.store(bytes.min(self.weight()) / 2, Ordering::Relaxed);
    }

    /// A transaction of this one envelope took too long; says whether that is the envelope's own fault: it took too long
    /// before, and others did not meanwhile.
    pub(crate) fn too_long_alone(&self, name: &Name) -> bool {
        let ended = self.ended.load(Ordering::Relaxed);
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        if slow.len() >= MOST_SLOW && !slow.contains_key(name) {
            slow.clear();
        }
        let known = slow.entry(name.clone()).or_insert(Slow { times: 0, ended });
        known.times = known.times.saturating_add(1);
        known.times >= MOST_TIMES && ended > known.ended
    }

    /// Whether this envelope took too long before, so that others had better not wait for it.
    pub(crate) fn is_slow(&self, name: &Name) -> bool {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(sequence: u64) -> Name {
        ("SL_LOGS_00".to_owned(), sequence, 1)
    }

    #[test]
    fn transactions_shrink_while_they_do_not_end_and_grow_again() {
        let pace = Pace::new(1_000);
        pace.too_long(1_500);
        assert_eq!(pace.weight(), 500);
        pace.too_long(300);
        assert_eq!(pace.weight(), 150);
        for _ in 0..4 {
            pace.ended([].iter());
        }
        assert_eq!(pace.weight(), 1_000);
    }

    #[test]
    fn an_envelope_is_at_fault_only_where_others_passed_meanwhile() {
        let pace = Pace::new(1_000);
        for _ in 0..9 {
            assert!(!pace.too_long_alone(&name(1)), "it may be Postgres");
        }
        pace.ended([name(2)].iter());
        assert!(pace.too_long_alone(&name(1)));
        pace.ended([name(1)].iter());
        pace.ended([name(2)].iter());
        assert!(!pace.is_slow(&name(1)) && !pace.too_long_alone(&name(1)));
    }
}
