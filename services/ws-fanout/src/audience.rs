//! Who listens to one stream, found by tenant and by metric name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use series::NameKey;

use crate::client::Client;

/// What the expressions of one tenant's listeners to a topic may cost together in a second, of a processor's time.
const EXPRESSIONS: Duration = Duration::from_millis(250);

/// The listeners of a stream. Whoever reads the stream looks at it without a lock.
#[derive(Default)]
pub(crate) struct Audience {
    tenants: ArcSwap<HashMap<String, Arc<Crowd>>>,
    changing: Mutex<()>,
}

/// The listeners of one tenant.
#[derive(Default)]
pub(crate) struct Crowd {
    pub(crate) clients: Vec<Arc<Client>>,
    /// Places in `clients` of those who want metrics by these names.
    named: HashMap<NameKey, Vec<usize>>,
    /// Of those who take metrics of every name.
    unnamed: Vec<usize>,
}

impl Audience {
    pub(crate) fn join(&self, client: &Arc<Client>) {
        self.change(&client.tenant, |clients| clients.push(Arc::clone(client)));
    }

    pub(crate) fn leave(&self, client: &Arc<Client>) {
        self.change(&client.tenant, |clients| clients.retain(|present| !Arc::ptr_eq(present, client)));
    }

    /// Those of `tenant`, if there are any.
    pub(crate) fn of(&self, tenant: &str) -> Option<Arc<Crowd>> {
        self.tenants.load().get(tenant).cloned()
    }

    pub(crate) fn everybody(&self) -> Vec<Arc<Client>> {
        self.tenants.load().values().flat_map(|crowd| crowd.clients.clone()).collect()
    }

    fn change(&self, tenant: &str, change: impl FnOnce(&mut Vec<Arc<Client>>)) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tenants = HashMap::clone(&self.tenants.load());
        let mut clients = tenants.remove(tenant).map(|crowd| crowd.clients.clone()).unwrap_or_default();
        change(&mut clients);
        if !clients.is_empty() {
            tenants.insert(tenant.to_owned(), Arc::new(Crowd::of(clients)));
        }
        self.tenants.store(Arc::new(tenants));
    }
}

impl Crowd {
    fn of(clients: Vec<Arc<Client>>) -> Self {
        let mut crowd = Self { clients, ..Self::default() };
        for (place, client) in crowd.clients.iter().enumerate() {
            if client.wanted.names.is_empty() {
                crowd.unnamed.push(place);
            }
            for key in client.wanted.names.iter().flat_map(series::WantedName::keys) {
                crowd.named.entry(key).or_default().push(place);
            }
        }
        crowd
    }

    /// Those who may want a metric with these keys, each once.
    pub(crate) fn wanting(&self, keys: &[NameKey]) -> impl Iterator<Item = &Arc<Client>> {
        let mut places: Vec<usize> = keys.iter().filter_map(|key| self.named.get(key)).flatten().copied().collect();
        places.sort_unstable();
        places.dedup();
        self.unnamed.iter().copied().chain(places).filter_map(|place| self.clients.get(place))
    }

    /// What the expressions of each may cost in a second.
    pub(crate) fn share(&self) -> Duration {
        let clients = u32::try_from(self.clients.len()).unwrap_or(u32::MAX).max(1);
        EXPRESSIONS / clients
    }

    /// Whether a metric's name decides anything here.
    pub(crate) fn goes_by_name(&self) -> bool {
        !self.named.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use series::{WantedName, name_keys};

    use super::*;
    use crate::queue::{Queue, Room};
    use crate::wanted::Wanted;

    fn client(tenant: &str, names: &[&str]) -> Arc<Client> {
        let names = names.iter().map(|name| WantedName::new(name)).collect();
        let wanted = Wanted { names, ..Wanted::default() };
        Arc::new(Client::new(tenant.to_owned(), wanted, Queue::new(&Room::new(1, 1))))
    }

    #[test]
    fn listeners_are_found_by_tenant_and_name_until_they_leave() {
        let audience = Audience::default();
        let (all, named) = (client("a", &[]), client("a", &["queue.depth", "queue_depth"]));
        let other = client("b", &[]);
        for client in [&all, &named, &other] {
            audience.join(client);
        }
        let wanting = |name: &str| audience.of("a").unwrap().wanting(&name_keys(name)).count();
        assert_eq!([wanting("queue_depth"), wanting("queue_length")], [2, 1]);
        assert_eq!(audience.of("b").unwrap().clients.len(), 1);
        assert_eq!(audience.everybody().len(), 3);
        audience.leave(&all);
        assert_eq!([wanting("queue_depth"), wanting("queue_length")], [1, 0]);
        audience.leave(&named);
        assert!(audience.of("a").is_none(), "nothing is decoded for a tenant without listeners");
    }
}
