//! Room for state, by bytes and by tenant: none can take the room of the others.

use std::collections::HashMap;
use std::sync::Arc;

use super::Limits;

/// What is taken.
#[derive(Default)]
pub(super) struct Capacity {
    total: usize,
    by_tenant: HashMap<Arc<str>, usize>,
}

impl Capacity {
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// The tenant's name, shared by everything of it.
    pub(super) fn tenant(&mut self, tenant: &str) -> Arc<str> {
        match self.by_tenant.get_key_value(tenant) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(tenant),
        }
    }

    /// Takes room, if there is some.
    pub(super) fn take(&mut self, tenant: &Arc<str>, bytes: usize, limits: &Limits) -> bool {
        let of_tenant = self.by_tenant.get(tenant).copied().unwrap_or(0);
        let has_room = self.total + bytes <= limits.state_bytes && of_tenant + bytes <= limits.tenant_state_bytes;
        if has_room {
            self.add(tenant, bytes);
        }
        has_room
    }

    /// Takes room for what cannot be refused any more: it was saved, or grew a little.
    pub(super) fn add(&mut self, tenant: &Arc<str>, bytes: usize) {
        self.total += bytes;
        *self.by_tenant.entry(Arc::clone(tenant)).or_default() += bytes;
    }

    pub(super) fn give_back(&mut self, tenant: &Arc<str>, bytes: usize) {
        self.total = self.total.saturating_sub(bytes);
        if let Some(taken) = self.by_tenant.get_mut(tenant) {
            *taken = taken.saturating_sub(bytes);
            if *taken == 0 {
                self.by_tenant.remove(tenant);
            }
        }
    }
}
