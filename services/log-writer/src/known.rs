//! Resources that this process has written down a short while ago, so that it need not say so with every transaction.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Well below the hour after which a resource is seen again.
const FRESH: Duration = Duration::from_secs(50 * 60);
/// Some 64 bytes each, and the tenants' names once.
const MOST: usize = 100_000;

type Key = (Arc<str>, i64);

/// Tenants and references, with the time when they were written down.
#[derive(Default)]
pub(crate) struct Known {
    seen: Mutex<HashMap<Key, Instant>>,
}

impl Known {
    pub(crate) fn contains(&self, tenant: &Arc<str>, reference: i64) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(Arc::clone(tenant), reference)).is_some_and(|at| at.elapsed() < FRESH)
    }

    /// These are written down and committed.
    pub(crate) fn learn(&self, resources: impl Iterator<Item = Key>) {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for key in resources {
            if seen.len() >= MOST {
                seen.retain(|_, at| at.elapsed() < FRESH);
            }
            // Where more than that are fresh, the newest are written down each time.
            if seen.len() < MOST {
                seen.insert(key, now);
            }
        }
    }
}
