//! Places for clients: so many for all, so many for one tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Clones share them.
#[derive(Clone)]
pub(crate) struct Places {
    all: usize,
    each: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    all: usize,
    by_tenant: HashMap<String, usize>,
}

/// A client's place, until it is dropped.
pub(crate) struct Place {
    places: Places,
    tenant: String,
}

impl Places {
    pub(crate) fn new(all: usize, each: usize) -> Self {
        Self { all, each, held: Arc::default() }
    }

    pub(crate) fn take(&self, tenant: &str) -> Option<Place> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = held.by_tenant.get(tenant).copied().unwrap_or_default();
        if held.all >= self.all || taken >= self.each {
            return None;
        }
        held.all += 1;
        held.by_tenant.insert(tenant.to_owned(), taken + 1);
        Some(Place { places: self.clone(), tenant: tenant.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= 1;
        let left = held.by_tenant.get(&self.tenant).map_or(0, |held| held - 1);
        if left == 0 {
            held.by_tenant.remove(&self.tenant);
        } else {
            held.by_tenant.insert(self.tenant.clone(), left);
        }
    }
}
