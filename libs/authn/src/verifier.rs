//! Verifies tokens, and remembers the ones that passed.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest;
use fault::Fault;
use http::HeaderMap;
use lifecycle::Process;
use moka::Expiry;
use moka::sync::Cache;
use tonic::metadata::MetadataMap;

use crate::known::{Known, Source};
use crate::token::{self, Audience};
use crate::{AgentIdentity, Credential, Keys, Permission, Principal, Revocation, bearer, follow};

/// 16 MB or so when full; a token that falls out is verified again.
const CACHE_TOKENS: u64 = 50_000;

/// Verifies tokens against auth's published keys. Clones share keys and cache.
#[derive(Clone)]
pub struct Verifier {
    source: Source,
    passed: Cache<[u8; 32], Passed>,
}

#[derive(Clone)]
enum Caller {
    User(Arc<Principal>),
    Agent(Arc<AgentIdentity>),
}

#[derive(Clone)]
struct Passed {
    caller: Caller,
    expires: SystemTime,
    /// The generation of keys that it was verified with: a key that auth withdrew takes its tokens along.
    generation: u64,
}

/// Forgets a token when it expires, whatever the cache's size.
struct AtExpiry;

impl Expiry<[u8; 32], Passed> for AtExpiry {
    fn expire_after_create(&self, _: &[u8; 32], passed: &Passed, _: Instant) -> Option<Duration> {
        Some(passed.expires.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

impl Verifier {
    /// A verifier that keeps auth's keys by a supervised task of `process`. Until they came once, every answer is
    /// `Unavailable` and the process is not ready.
    #[must_use]
    pub fn new(auth: rpc::Channel, process: &Process) -> Self {
        Self::with(follow::source(auth, process))
    }

    /// A verifier with the given keys, for tests.
    #[must_use]
    pub fn fixed(keys: Keys) -> Self {
        Self::with(Source::fixed(keys))
    }

    /// A verifier that is told by hand, for auth itself, which knows first.
    #[must_use]
    pub fn fed(keys: Keys) -> (Self, Feed) {
        let source = Source::fixed(keys);
        (Self::with(source.clone()), Feed(source))
    }

    fn with(source: Source) -> Self {
        Self { source, passed: Cache::builder().max_capacity(CACHE_TOKENS).expire_after(AtExpiry).build() }
    }

    /// The user whose token this is.
    ///
    /// # Errors
    /// Unauthenticated, with what to do; Unavailable where auth's keys would be needed and cannot be had.
    pub async fn user(&self, token: &str) -> fault::Result<Principal> {
        match self.verify(token, Audience::Api).await? {
            Caller::User(principal) => Ok(Principal::clone(&principal)),
            Caller::Agent(_) => Err(token::invalid(Audience::Api)),
        }
    }

    /// The agent whose token this is.
    ///
    /// # Errors
    /// As with [`Verifier::user`].
    pub async fn agent(&self, token: &str) -> fault::Result<AgentIdentity> {
        match self.verify(token, Audience::Ingest).await? {
            Caller::Agent(agent) => Ok(AgentIdentity::clone(&agent)),
            Caller::User(_) => Err(token::invalid(Audience::Ingest)),
        }
    }

    /// The user who makes a gRPC call.
    ///
    /// # Errors
    /// As with [`Verifier::user`]; a call without a token is unauthenticated.
    pub async fn caller(&self, metadata: &MetadataMap) -> fault::Result<Principal> {
        let token = bearer::header(metadata.as_ref())?.ok_or_else(|| token::missing(Audience::Api))?;
        self.user(token).await
    }

    /// The user who makes an HTTP request, with the token in the header or, for WebSockets, among the subprotocols.
    ///
    /// # Errors
    /// As with [`Verifier::caller`].
    pub async fn request(&self, headers: &HeaderMap) -> fault::Result<Principal> {
        let token = bearer::header(headers)?.or_else(|| bearer::subprotocol(headers));
        self.user(token.ok_or_else(|| token::missing(Audience::Api))?).await
    }

    /// The agent who sends `headers`; nothing when there is no credential, which a listener's policy then decides on.
    ///
    /// # Errors
    /// As with [`Verifier::user`].
    pub async fn sender(&self, headers: &HeaderMap) -> fault::Result<Option<AgentIdentity>> {
        match bearer::header(headers)? {
            Some(token) => self.agent(token).await.map(Some),
            None => Ok(None),
        }
    }

    /// Resolves when auth has taken back what `credential` stands for; never before. Who holds a stream open for somebody
    /// waits for this beside the end of their token.
    pub async fn until_revoked(&self, credential: &Credential) {
        self.source.until_revoked(credential).await;
    }

    /// The fault for a sender without a credential where one is required.
    #[must_use]
    pub fn sender_missing() -> Fault {
        token::missing(Audience::Ingest)
    }

    /// The key set that is in use, for `/.well-known/jwks.json`.
    ///
    /// # Errors
    /// Unavailable until the keys came once.
    pub fn jwks(&self) -> fault::Result<String> {
        self.source.known().map(|known| known.keys.to_json().to_owned())
    }

    async fn verify(&self, token: &str, audience: Audience) -> fault::Result<Caller> {
        let hash = hash(token);
        let known = self.source.known()?;
        if let Some(passed) = self.passed.get(&hash)
            && passed.expires > SystemTime::now()
            && passed.generation == known.generation
        {
            return passed.caller.unless_revoked(&known);
        }
        let id = token::key_id(token, audience)?;
        let known = self.source.with_key(&id, audience).await?;
        let key = known.keys.get(&id).ok_or_else(|| token::invalid(audience))?;
        let claims = token::verify(token, key, audience)?;
        let expires = claims.expires();
        let caller = caller(token, claims, audience);
        self.passed.insert(hash, Passed { caller: caller.clone(), expires, generation: known.generation });
        caller.unless_revoked(&known)
    }
}

/// Tells a verifier made by [`Verifier::fed`] what holds.
pub struct Feed(Source);

impl Feed {
    /// Puts `keys` in place of the former ones and adds `revocations` to what is taken back.
    pub fn publish(&self, keys: Keys, revocations: impl IntoIterator<Item = Revocation>) {
        self.0.publish(keys, revocations);
    }
}

impl Caller {
    fn unless_revoked(self, known: &Known) -> fault::Result<Self> {
        let (credential, audience) = match &self {
            Self::User(principal) => (&principal.credential, Audience::Api),
            Self::Agent(agent) => (&agent.credential, Audience::Ingest),
        };
        if known.revoked.covers(credential) { Err(token::revoked(audience)) } else { Ok(self) }
    }
}

fn caller(token: &str, claims: token::Claims, audience: Audience) -> Caller {
    let expires = claims.expires();
    let credential = Credential { token: claims.jti, session: claims.sid };
    match audience {
        Audience::Api => Caller::User(Arc::new(Principal {
            expires,
            credential,
            permissions: claims.permissions.iter().filter_map(|name| Permission::named(name)).collect(),
            tenant: claims.tenant,
            subject: claims.sub,
            token: token.to_owned(),
        })),
        Audience::Ingest => {
            let (tenant, agent_id) = (claims.tenant, claims.sub);
            Caller::Agent(Arc::new(AgentIdentity { tenant, agent_id, credential, expires }))
        }
    }
}

/// The cache holds hashes, so that a dump of memory is not a list of credentials of agents.
fn hash(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests;
