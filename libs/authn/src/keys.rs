//! The public keys that tokens are verified with, as a JSON Web Key Set (RFC 7517, RFC 8037).

use std::collections::HashMap;

use anyhow::Context as _;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet};

/// Auth's public keys by id. Only Ed25519 keys get in, so no other algorithm can be asked for.
#[derive(Clone)]
pub struct Keys {
    jwks: String,
    by_id: HashMap<String, DecodingKey>,
}

impl Keys {
    /// Reads a key set.
    ///
    /// # Errors
    /// Text that is no key set, or one without a key that we could use.
    pub fn parse(jwks: &str) -> anyhow::Result<Self> {
        let set: JwkSet = serde_json::from_str(jwks).context("read the key set")?;
        let mut by_id = HashMap::new();
        for jwk in &set.keys {
            let AlgorithmParameters::OctetKeyPair(pair) = &jwk.algorithm else {
                continue;
            };
            let Some(id) = jwk.common.key_id.clone().filter(|_| pair.curve == EllipticCurve::Ed25519) else {
                continue;
            };
            by_id.insert(id, DecodingKey::from_ed_components(&pair.x).context("read a public key")?);
        }
        anyhow::ensure!(!by_id.is_empty(), "the key set holds no Ed25519 key with an id");
        Ok(Self { jwks: jwks.to_owned(), by_id })
    }

    /// The set as it was published.
    #[must_use]
    pub fn to_json(&self) -> &str {
        &self.jwks
    }

    pub(crate) fn get(&self, id: &str) -> Option<&DecodingKey> {
        self.by_id.get(id)
    }

    /// Whether every key of `self` is in `newer`.
    pub(crate) fn all_in(&self, newer: &Self) -> bool {
        self.by_id.keys().all(|id| newer.by_id.contains_key(id))
    }
}
