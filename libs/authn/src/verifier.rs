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

use crate::refresh::{Published, Source};
use crate::token::{self, Audience};
use crate::{AgentIdentity, Keys, Permission, Principal, bearer};

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
        Self::with(Source::remote(auth, process))
    }

    /// A verifier with the given keys, for auth itself and for tests.
    #[must_use]
    pub fn fixed(keys: Keys) -> Self {
        Self::with(Source::fixed(keys))
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
        self.source.published().map(|published| published.keys.to_json().to_owned())
    }

    async fn verify(&self, token: &str, audience: Audience) -> fault::Result<Caller> {
        let hash = hash(token);
        if let Some(passed) = self.passed.get(&hash)
            && passed.expires > SystemTime::now()
            && passed.generation == self.source.generation()
        {
            return Ok(passed.caller);
        }
        let id = token::key_id(token, audience)?;
        let published: Arc<Published> = self.source.with_key(&id, audience).await?;
        let key = published.keys.get(&id).ok_or_else(|| token::invalid(audience))?;
        let claims = token::verify(token, key, audience)?;
        let expires = claims.expires();
        let caller = caller(token, claims, audience);
        self.passed.insert(hash, Passed { caller: caller.clone(), expires, generation: published.generation });
        Ok(caller)
    }
}

fn caller(token: &str, claims: token::Claims, audience: Audience) -> Caller {
    match audience {
        Audience::Api => Caller::User(Arc::new(Principal {
            expires: claims.expires(),
            permissions: claims.permissions.iter().filter_map(|name| Permission::named(name)).collect(),
            tenant: claims.tenant,
            subject: claims.sub,
            token: token.to_owned(),
        })),
        Audience::Ingest => Caller::Agent(Arc::new(AgentIdentity { tenant: claims.tenant, agent_id: claims.sub })),
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
