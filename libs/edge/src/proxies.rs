//! Who a request comes from when proxies stand between: the right-most hop that is not one of ours.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use ipnet::IpNet;

/// The one header that trusted proxies write. The other one is passed on by most of them as the client wrote it.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, what nearly all proxies write.
    XForwardedFor,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}

/// Proxies whose word is believed. Clones share it.
#[derive(Debug, Clone)]
pub struct Proxies {
    trusted: Arc<[IpNet]>,
    header: ForwardedHeader,
}

impl Proxies {
    #[must_use]
    pub fn new(trusted: &[IpNet], header: ForwardedHeader) -> Self {
        Self { trusted: trusted.into(), header }
    }

    /// The client of a request with `headers` that came over a connection from `peer`.
    ///
    /// Hops are read from the right, where the nearest proxy wrote, until one is not trusted: what stands left of it is its own
    /// claim. Where a trusted proxy wrote no address, it is the client itself.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let name = match self.header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        for line in headers.get_all(name).iter().rev() {
            // Not text: no proxy of ours wrote it.
            let Ok(line) = line.to_str() else { return client };
            for hop in line.rsplit(',') {
                let address = match self.header {
                    ForwardedHeader::XForwardedFor => address(hop),
                    ForwardedHeader::Forwarded => forwarded_for(hop),
                };
                let Some(address) = address else { return client };
                client = address.to_canonical();
                if !self.trusts(client) {
                    return client;
                }
            }
        }
        client
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

/// The address after `for=` of one element of `Forwarded`; none where it is a name, hidden, or missing.
fn forwarded_for(hop: &str) -> Option<IpAddr> {
    let mut pairs = hop.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    address(value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: ForwardedHeader, peer: &str, lines: &[(&'static str, &str)], client: &str) {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let found = Proxies::new(&trusted, header).client(peer.parse().unwrap(), &headers);
        assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{lines:?}");
    }

    #[test]
    fn the_right_most_hop_that_is_not_ours_is_the_client() {
        const X: &str = "x-forwarded-for";
        let check = |peer, lines: &[_], client| check(ForwardedHeader::XForwardedFor, peer, lines, client);
        check("10.0.0.1", &[(X, "203.0.113.7")], "203.0.113.7");
        check("10.0.0.1", &[(X, "1.1.1.1, 203.0.113.7, 10.0.0.2")], "203.0.113.7");
        check("10.0.0.1", &[(X, "1.1.1.1"), (X, "203.0.113.7:4711")], "203.0.113.7");
        check("::ffff:10.0.0.1", &[(X, "[2001:db8::1]:4711")], "2001:db8::1");
        check("10.0.0.1", &[(X, "10.0.0.3")], "10.0.0.3");
        check("10.0.0.1", &[], "10.0.0.1");
    }

    #[test]
    fn a_client_cannot_name_its_own_address() {
        const X: &str = "x-forwarded-for";
        let check = |peer, lines: &[_], client| check(ForwardedHeader::XForwardedFor, peer, lines, client);
        check("203.0.113.7", &[(X, "127.0.0.1")], "203.0.113.7");
        check("10.0.0.1", &[("forwarded", "for=127.0.0.1"), (X, "203.0.113.7")], "203.0.113.7");
        check("10.0.0.1", &[(X, "127.0.0.1, unknown")], "10.0.0.1");
        check("10.0.0.1", &[(X, "127.0.0.1, , 10.0.0.2")], "10.0.0.2");
    }

    #[test]
    fn the_standard_header_reads_alike() {
        const F: &str = "forwarded";
        let check = |peer, lines: &[_], client| check(ForwardedHeader::Forwarded, peer, lines, client);
        check("10.0.0.1", &[(F, "for=203.0.113.7;proto=https;by=10.0.0.1")], "203.0.113.7");
        check("10.0.0.1", &[(F, "for=1.1.1.1, proto=http;For=\"[2001:db8::1]:4711\"")], "2001:db8::1");
        check("10.0.0.1", &[(F, "for=_hidden")], "10.0.0.1");
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1")], "10.0.0.1");
    }
}
