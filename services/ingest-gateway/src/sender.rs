//! Who sends: the credential decides, and where there is none the listener's policy.

use std::net::IpAddr;
use std::sync::Arc;

use authn::{Permission, Verifier, bearer};
use fault::{Fault, Kind};
use http::HeaderMap;
use ipnet::IpNet;
use model::TenantId;

/// Where a message comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// Everything in it belongs to this tenant.
    pub tenant: Arc<str>,
    /// How the sender is known.
    pub origin: Origin,
}

/// How a sender is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// By an agent's token.
    Agent(String),
    /// By a user's token, which may be any program's.
    User(String),
    /// By its address alone.
    Network(IpAddr),
}

impl Sender {
    /// The agent that the credential names.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        match &self.origin {
            Origin::Agent(id) => Some(id),
            Origin::User(_) | Origin::Network(_) => None,
        }
    }

    /// Whether an agent id within the data may be believed: only where nobody has proved to be somebody.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        matches!(self.origin, Origin::Network(_))
    }

    /// A text that is the same for the same sender at every gateway.
    #[must_use]
    pub fn identity(&self) -> String {
        match &self.origin {
            Origin::Agent(id) => format!("agent/{id}"),
            Origin::User(subject) => format!("user/{subject}"),
            Origin::Network(address) => format!("network/{address}"),
        }
    }
}

/// Decides who a sender is.
#[derive(Clone)]
pub struct Policy {
    verifier: Verifier,
    networks: Arc<[IpNet]>,
    anonymous: Arc<str>,
}

impl Policy {
    #[must_use]
    pub fn new(verifier: Verifier, networks: &[IpNet], anonymous: &TenantId) -> Self {
        Self { verifier, networks: networks.into(), anonymous: anonymous.as_str().into() }
    }

    /// The sender of a message with these headers, from this address.
    ///
    /// # Errors
    /// Unauthenticated or forbidden, with what to do; unavailable when the token's key is not known and auth is away.
    pub async fn sender(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Sender, Fault> {
        match bearer::header(headers)? {
            Some(token) => self.holder(token).await,
            None => self.stranger(peer),
        }
    }

    async fn holder(&self, token: &str) -> Result<Sender, Fault> {
        let refused = match self.verifier.agent(token).await {
            Ok(agent) => return Ok(Sender { tenant: agent.tenant.into(), origin: Origin::Agent(agent.agent_id) }),
            Err(fault) if fault.kind() != Kind::Unauthenticated => return Err(fault),
            Err(fault) => fault,
        };
        // A user's token is no agent's; when it is neither, the agent's refusal says what belongs here.
        let Ok(user) = self.verifier.user(token).await else { return Err(refused) };
        user.require(Permission::TelemetryWrite)?;
        Ok(Sender { tenant: user.tenant.into(), origin: Origin::User(user.subject) })
    }

    fn stranger(&self, peer: IpAddr) -> Result<Sender, Fault> {
        // An IPv4 client of a socket that takes both shows as ::ffff:a.b.c.d.
        let peer = peer.to_canonical();
        if self.networks.iter().any(|network| network.contains(&peer)) {
            return Ok(Sender { tenant: Arc::clone(&self.anonymous), origin: Origin::Network(peer) });
        }
        Err(Verifier::sender_missing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(networks: &[&str]) -> Policy {
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        Policy::new(testkit::tokens().verifier(), &networks, &TenantId::default())
    }

    #[tokio::test]
    async fn strangers_are_taken_from_listed_networks_only() {
        let policy = policy(&["127.0.0.0/8"]);
        let mapped = policy.sender(&HeaderMap::new(), "::ffff:127.0.0.1".parse().unwrap()).await.unwrap();
        assert_eq!(mapped.origin, Origin::Network("127.0.0.1".parse().unwrap()));
        let fault = policy.sender(&HeaderMap::new(), "10.0.0.1".parse().unwrap()).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Unauthenticated);
    }

    #[tokio::test]
    async fn a_bad_token_is_not_a_stranger() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer not.a.token".parse().unwrap());
        let fault = policy(&["127.0.0.0/8"]).sender(&headers, "127.0.0.1".parse().unwrap()).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Unauthenticated);
    }
}
