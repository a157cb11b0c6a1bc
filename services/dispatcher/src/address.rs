//! Which addresses a webhook may be sent to. A receiver's URL is written by a user, and must not turn this service into
//! a way to things that only this service can reach.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// Kinds of addresses that are refused unless their network is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Loopback,
    LinkLocal,
    Private,
    Reserved,
    /// IPv6 addresses that carry an IPv4 address through a translator or tunnel.
    Translated,
}

/// An address that a webhook may not be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Refusal(pub Class);

impl fmt::Display for Refusal {
    /// Without the address: who wrote the name must not learn what it resolves to in here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.0 {
            Class::Loopback => "a loopback",
            Class::LinkLocal => "a link-local",
            Class::Private => "a private",
            Class::Reserved => "a reserved",
            Class::Translated => "a translated",
        };
        write!(f, "the receiver's address is {what} one; SIGHTLINE_WEBHOOK_ALLOWED_NETWORKS does not allow it")
    }
}

/// Refused IPv4 networks (IANA special-purpose registry). 169.254.169.254 and 100.100.100.200 are metadata services.
const V4: [(&str, Class); 16] = [
    ("0.0.0.0/8", Class::Loopback),
    ("10.0.0.0/8", Class::Private),
    ("100.64.0.0/10", Class::Private),
    ("127.0.0.0/8", Class::Loopback),
    ("169.254.0.0/16", Class::LinkLocal),
    ("172.16.0.0/12", Class::Private),
    ("192.0.0.0/24", Class::Reserved),
    ("192.0.2.0/24", Class::Reserved),
    ("192.88.99.0/24", Class::Translated),
    ("192.168.0.0/16", Class::Private),
    ("198.18.0.0/15", Class::Private),
    ("198.51.100.0/24", Class::Reserved),
    ("203.0.113.0/24", Class::Reserved),
    ("224.0.0.0/4", Class::Reserved),
    ("240.0.0.0/4", Class::Reserved),
    ("255.255.255.255/32", Class::Reserved),
];

/// Refused IPv6 networks. `::/96` holds `::`, `::1` and the old IPv4-compatible addresses.
const V6: [(&str, Class); 14] = [
    ("::/96", Class::Loopback),
    ("::ffff:0:0:0/96", Class::Translated),
    ("64:ff9b::/96", Class::Translated),
    ("64:ff9b:1::/48", Class::Translated),
    ("100::/64", Class::Reserved),
    ("2001::/32", Class::Translated),
    ("2001:db8::/32", Class::Reserved),
    ("2002::/16", Class::Translated),
    ("3fff::/20", Class::Reserved),
    ("5f00::/16", Class::Reserved),
    ("fc00::/7", Class::Private),
    ("fe80::/10", Class::LinkLocal),
    ("fec0::/10", Class::Private),
    ("ff00::/8", Class::Reserved),
];

/// Says which addresses are taken.
#[derive(Debug, Clone)]
pub struct Policy {
    allowed: Vec<IpNet>,
    refused: Vec<(IpNet, Class)>,
}

impl Policy {
    /// Public addresses and those in `allowed`.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>) -> Self {
        let refused = V4.iter().chain(&V6);
        let refused = refused.filter_map(|(network, class)| Some((network.parse().ok()?, *class)));
        Self { allowed, refused: refused.collect() }
    }

    /// Whether a connection to `address` may be made.
    ///
    /// # Errors
    /// What kind of address it is.
    pub fn check(&self, address: IpAddr) -> Result<(), Refusal> {
        // ::ffff:127.0.0.1 is 127.0.0.1.
        let address = address.to_canonical();
        if self.allowed.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        let refused = self.refused.iter().find(|(network, _)| network.contains(&address));
        refused.map_or(Ok(()), |(_, class)| Err(Refusal(*class)))
    }

    /// Checks a URL whose host is an address. The URL parser has made one spelling of all (`0x7f.1`, `2130706433`).
    /// Names pass: they are checked when they are resolved, each time.
    ///
    /// # Errors
    /// What kind of address it is.
    pub fn check_literal(&self, url: &Url) -> Result<(), Refusal> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(Ipv4Addr::into(address)),
            Some(Host::Ipv6(address)) => self.check(Ipv6Addr::into(address)),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(policy: &Policy, host: &str) -> Result<(), Refusal> {
        policy.check_literal(&Url::parse(&format!("http://{host}/hook")).unwrap())
    }

    #[test]
    fn every_listed_network_is_read() {
        assert_eq!(Policy::new(Vec::new()).refused.len(), V4.len() + V6.len());
    }

    #[test]
    fn what_is_not_public_is_refused_in_every_spelling() {
        let policy = Policy::new(Vec::new());
        let refused = [
            ("127.0.0.1", Class::Loopback),
            ("0x7f.1", Class::Loopback),
            ("2130706433", Class::Loopback),
            ("017700000001", Class::Loopback),
            ("0", Class::Loopback),
            ("[::1]", Class::Loopback),
            ("[::]", Class::Loopback),
            ("[::ffff:127.0.0.1]", Class::Loopback),
            ("[::127.0.0.1]", Class::Loopback),
            ("169.254.169.254", Class::LinkLocal),
            ("[fe80::1]", Class::LinkLocal),
            ("10.1.2.3", Class::Private),
            ("172.31.255.255", Class::Private),
            ("192.168.0.1", Class::Private),
            ("100.100.100.200", Class::Private),
            ("[fd00:ec2::254]", Class::Private),
            ("[::ffff:10.0.0.1]", Class::Private),
            ("[64:ff9b::10.0.0.1]", Class::Translated),
            ("[2002:7f00:1::]", Class::Translated),
            ("[3fff::1]", Class::Reserved),
            ("[5f00::1]", Class::Reserved),
            ("224.0.0.1", Class::Reserved),
            ("255.255.255.255", Class::Reserved),
        ];
        for (host, class) in refused {
            assert_eq!(literal(&policy, host), Err(Refusal(class)), "{host}");
        }
    }

    #[test]
    fn public_addresses_and_allowed_networks_pass() {
        let policy = Policy::new(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "1.1.1.1", "172.32.0.1", "[2606:4700::1111]"] {
            assert_eq!(literal(&policy, host), Ok(()), "{host}");
        }
        assert!(literal(&policy, "10.0.0.1").is_err());
    }
}
