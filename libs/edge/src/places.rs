//! Places for connections: so many for all, and so many for one client, so that the others find some.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::proxies::Proxies;

/// The places of one port. Clones share them.
#[derive(Clone)]
pub(crate) struct Places {
    all: usize,
    each: usize,
    /// Behind these are many clients.
    proxies: Proxies,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// A connection's place, until it is dropped.
pub(crate) struct Place {
    places: Places,
    client: Option<IpAddr>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Everywhere,
    ForThisClient,
}

impl Full {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Everywhere => "too_many",
            Self::ForThisClient => "too_many_of_client",
        }
    }
}

impl Places {
    pub(crate) fn new(all: usize, each: usize, proxies: Proxies) -> Self {
        Self { all, each, proxies, held: Arc::default() }
    }

    /// A place for a connection from `address`.
    pub(crate) fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let address = address.to_canonical();
        let client = (!self.proxies.trusts(address)).then(|| source(address));
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.all >= self.all {
            return Err(Full::Everywhere);
        }
        if let Some(client) = client {
            let by_client = held.by_client.entry(client).or_default();
            if *by_client >= self.each {
                return Err(Full::ForThisClient);
            }
            *by_client += 1;
        }
        held.all += 1;
        Ok(Place { places: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= 1;
        if let Some(client) = self.client
            && let Some(by_client) = held.by_client.get_mut(&client)
        {
            *by_client -= 1;
            if *by_client == 0 {
                held.by_client.remove(&client);
            }
        }
    }
}

/// Whoever has one IPv6 address has all of its /64.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxies::ForwardedHeader;

    fn places(all: usize, each: usize) -> Places {
        Places::new(all, each, Proxies::new(&["10.0.0.0/8".parse().unwrap()], ForwardedHeader::XForwardedFor))
    }

    fn take(places: &Places, address: &str) -> Result<Place, Full> {
        places.take(address.parse().unwrap())
    }

    #[test]
    fn one_client_leaves_places_to_others_and_gives_its_own_back() {
        let places = places(3, 2);
        let held: Vec<Place> = (0..2).map(|_| take(&places, "203.0.113.7").unwrap_or_else(|_| panic!())).collect();
        assert_eq!(take(&places, "::ffff:203.0.113.7").err(), Some(Full::ForThisClient));
        let other = take(&places, "203.0.113.8");
        assert!(other.is_ok());
        assert_eq!(take(&places, "203.0.113.9").err(), Some(Full::Everywhere));
        drop((held, other));
        assert!(take(&places, "203.0.113.7").is_ok());
        assert!(places.held.lock().unwrap().by_client.is_empty());
    }

    #[test]
    fn a_network_of_one_holder_is_one_client_and_a_trusted_proxy_is_many() {
        let places = places(10, 1);
        let _held = take(&places, "2001:db8::1").ok();
        assert_eq!(take(&places, "2001:db8::2:1").err(), Some(Full::ForThisClient));
        assert!(take(&places, "2001:db8:0:1::1").is_ok());
        let proxied: Vec<_> = (0..5).map(|_| take(&places, "10.0.0.1")).collect();
        assert!(proxied.iter().all(Result::is_ok));
    }
}
