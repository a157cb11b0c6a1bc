//! Who sends: the credential decides, and where there is none the listener's policy.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use authn::{Credential, Permission, Verifier, bearer};
use edge::{Certificate, Peer};
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
    /// What a stream must not outlive.
    proof: Option<Proof>,
}

/// A token's end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proof {
    credential: Credential,
    expires: SystemTime,
}

/// How a sender is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// By an agent's token.
    Agent(String),
    /// By a user's token, which may be any program's.
    User(String),
    /// By a certificate that names no agent, which a whole fleet may share; by its name or fingerprint.
    Certificate(String),
    /// By its address alone.
    Network(IpAddr),
}

impl Sender {
    /// One that is known by its address alone.
    #[cfg(test)]
    pub(crate) fn at(tenant: &str, address: IpAddr) -> Self {
        Self { tenant: tenant.into(), origin: Origin::Network(address), proof: None }
    }

    /// The agent that the credential names.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        match &self.origin {
            Origin::Agent(id) => Some(id),
            Origin::User(_) | Origin::Certificate(_) | Origin::Network(_) => None,
        }
    }

    /// Whether an agent id within the data may be believed for naming batches: only where nobody has proved to be somebody.
    #[must_use]
    pub fn may_claim(&self) -> bool {
        matches!(self.origin, Origin::Network(_) | Origin::Certificate(_))
    }

    /// A text that is the same for the same sender at every gateway.
    #[must_use]
    pub fn identity(&self) -> String {
        match &self.origin {
            Origin::Agent(id) => format!("agent/{id}"),
            Origin::User(subject) => format!("user/{subject}"),
            Origin::Certificate(name) => format!("certificate/{name}"),
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
    certified: Arc<str>,
}

/// A certificate that names an agent has this as a URI name, with its tenant and id: `sightline://acme/agent-7`.
const AGENT_URI: &str = "sightline://";

impl Policy {
    /// `anonymous` is the tenant of clients from `networks`, `certified` of those whose certificate names no other.
    #[must_use]
    pub fn new(verifier: Verifier, networks: &[IpNet], anonymous: &TenantId, certified: &TenantId) -> Self {
        let (anonymous, certified) = (anonymous.as_str().into(), certified.as_str().into());
        Self { verifier, networks: networks.into(), anonymous, certified }
    }

    /// The sender of a message with these headers, from this peer: a token wins over a certificate, and either over the
    /// address.
    ///
    /// # Errors
    /// Unauthenticated or forbidden, with what to do; unavailable when the token's key is not known and auth is away.
    pub async fn sender(&self, headers: &HeaderMap, peer: &Peer) -> Result<Sender, Fault> {
        match (bearer::header(headers)?, &peer.certificate) {
            (Some(token), _) => self.holder(token).await,
            (None, Some(certificate)) => Ok(self.certified(certificate)),
            (None, None) => self.stranger(peer.client),
        }
    }

    /// Resolves when the sender's token ends or is taken back; never for who has none.
    pub async fn until_void(self, sender: Sender) {
        let Some(proof) = sender.proof else { return std::future::pending().await };
        let rest = proof.expires.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = self.verifier.until_revoked(&proof.credential) => {}
        }
    }

    /// The client's authority has signed for it, so it is somebody: an agent of its own, or one of many.
    fn certified(&self, certificate: &Certificate) -> Sender {
        let agent = certificate.names.iter().find_map(|name| {
            let (tenant, agent) = name.strip_prefix(AGENT_URI)?.split_once('/')?;
            let tenant: TenantId = tenant.parse().ok()?;
            (!agent.is_empty()).then(|| (tenant, agent.to_owned()))
        });
        match agent {
            Some((tenant, agent)) => {
                Sender { tenant: tenant.as_str().into(), origin: Origin::Agent(agent), proof: None }
            }
            None => {
                let name = certificate.common_name.as_ref().unwrap_or(&certificate.fingerprint);
                Sender { tenant: Arc::clone(&self.certified), origin: Origin::Certificate(name.clone()), proof: None }
            }
        }
    }

    async fn holder(&self, token: &str) -> Result<Sender, Fault> {
        let refused = match self.verifier.agent(token).await {
            Ok(agent) => {
                let proof = Proof { credential: agent.credential, expires: agent.expires };
                let (tenant, origin) = (agent.tenant.into(), Origin::Agent(agent.agent_id));
                return Ok(Sender { tenant, origin, proof: Some(proof) });
            }
            Err(fault) if fault.kind() != Kind::Unauthenticated => return Err(fault),
            Err(fault) => fault,
        };
        // A user's token is no agent's; when it is neither, the agent's refusal says what belongs here.
        let Ok(user) = self.verifier.user(token).await else { return Err(refused) };
        user.require(Permission::TelemetryWrite)?;
        let proof = Proof { credential: user.credential, expires: user.expires };
        Ok(Sender { tenant: user.tenant.into(), origin: Origin::User(user.subject), proof: Some(proof) })
    }

    fn stranger(&self, peer: IpAddr) -> Result<Sender, Fault> {
        // An IPv4 client of a socket that takes both shows as ::ffff:a.b.c.d.
        let peer = peer.to_canonical();
        if self.networks.iter().any(|network| network.contains(&peer)) {
            return Ok(Sender { tenant: Arc::clone(&self.anonymous), origin: Origin::Network(peer), proof: None });
        }
        Err(Verifier::sender_missing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(networks: &[&str]) -> Policy {
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        Policy::new(testkit::tokens().verifier(), &networks, &TenantId::default(), &"certified".parse().unwrap())
    }

    #[test]
    fn strangers_are_taken_from_listed_networks_only() {
        let policy = policy(&["127.0.0.0/8"]);
        let mapped = policy.stranger("::ffff:127.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(mapped.origin, Origin::Network("127.0.0.1".parse().unwrap()));
        assert_eq!(policy.stranger("10.0.0.1".parse().unwrap()).unwrap_err().kind(), Kind::Unauthenticated);
    }

    #[tokio::test]
    async fn a_bad_token_is_refused() {
        let fault = policy(&["127.0.0.0/8"]).holder("not.a.token").await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Unauthenticated);
    }

    #[test]
    fn a_certificate_names_an_agent_or_admits_one_of_many() {
        let certificate = |names: &[&str]| Certificate {
            common_name: Some("gosight-agent".to_owned()),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            fingerprint: "f".repeat(64),
        };
        let policy = policy(&[]);
        let one = policy.certified(&certificate(&["web-1.example", "sightline://acme/agent-7"]));
        assert_eq!((one.tenant.as_ref(), one.agent()), ("acme", Some("agent-7")));
        for names in [&[][..], &["sightline://acme"], &["sightline://acme/"], &["sightline://A B/x"]] {
            let many = policy.certified(&certificate(names));
            assert_eq!((many.tenant.as_ref(), many.agent()), ("certified", None), "{names:?}");
            assert!(many.may_claim() && many.identity() == "certificate/gosight-agent");
        }
    }

    #[tokio::test]
    async fn a_stream_does_not_outlive_its_token() {
        let policy = policy(&["127.0.0.0/8"]);
        let lasting = policy.stranger("127.0.0.1".parse().unwrap()).unwrap();
        assert!(futures::poll!(Box::pin(policy.clone().until_void(lasting.clone()))).is_pending());
        let credential = Credential { token: "t".to_owned(), session: None };
        let ended = Sender { proof: Some(Proof { credential, expires: SystemTime::UNIX_EPOCH }), ..lasting };
        policy.until_void(ended).await;
    }
}
