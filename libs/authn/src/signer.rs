//! Signs tokens. Only auth holds a signer outside tests.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use uuid::Uuid;

use crate::Permission;
use crate::token::{Audience, Claims, ISSUER, unix_seconds};

/// An Ed25519 key pair under the id that its public half hashes to (RFC 7638).
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    public: [u8; 32],
    id: String,
}

/// Who a token is about.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub tenant: &'a str,
    /// The user's or the agent's id.
    pub id: &'a str,
    pub permissions: &'a [Permission],
    /// The session that a user's token comes from.
    pub session: Option<Uuid>,
}

/// A token that was just signed.
#[derive(Clone)]
pub struct Issued {
    /// The token itself.
    pub token: String,
    /// Its `jti`, by which it can be recorded without keeping it.
    pub id: Uuid,
    /// Its `exp`.
    pub expires: SystemTime,
}

impl Signer {
    /// A new key.
    ///
    /// # Errors
    /// No randomness from the operating system.
    pub fn generate() -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::generate().context("generate a signing key")?;
        let pkcs8 = pair.to_pkcs8v1().context("encode the signing key")?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// A key that was kept as PKCS#8 DER.
    ///
    /// # Errors
    /// Bytes that are no Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(der).context("read the signing key")?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().context("read the public key")?;
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, BASE64URL_NOPAD.encode(&public));
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, members.as_bytes());
        Ok(Self { key: EncodingKey::from_ed_der(der), public, id: BASE64URL_NOPAD.encode(hash.as_ref()) })
    }

    /// The private key as PKCS#8 DER, for the one place that keeps it.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        self.key.as_bytes()
    }

    /// The `kid` of its tokens.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.id
    }

    /// The public key as a JSON Web Key.
    #[must_use]
    pub fn jwk(&self) -> serde_json::Value {
        let x = BASE64URL_NOPAD.encode(&self.public);
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.id, "x": x})
    }

    /// A key set of this key alone, for tests; auth publishes all keys that are not retired.
    #[must_use]
    pub fn jwks(&self) -> String {
        json!({"keys": [self.jwk()]}).to_string()
    }

    /// A user's token without a session, good from `now` on for `lifetime`.
    ///
    /// # Errors
    /// A key that cannot sign; not one that this type let in.
    pub fn user(
        &self,
        tenant: &str,
        user_id: &str,
        permissions: &[Permission],
        now: SystemTime,
        lifetime: Duration,
    ) -> anyhow::Result<Issued> {
        self.sign(Audience::Api, Subject { tenant, id: user_id, permissions, session: None }, now, lifetime)
    }

    /// A token of the user's `session`, with which it can be taken back.
    ///
    /// # Errors
    /// As [`Signer::user`].
    pub fn session(&self, subject: Subject<'_>, now: SystemTime, lifetime: Duration) -> anyhow::Result<Issued> {
        self.sign(Audience::Api, subject, now, lifetime)
    }

    /// An agent's token, good from `now` on for `lifetime`.
    ///
    /// # Errors
    /// A key that cannot sign; not one that this type let in.
    pub fn agent(&self, tenant: &str, agent_id: &str, now: SystemTime, lifetime: Duration) -> anyhow::Result<Issued> {
        self.sign(Audience::Ingest, Subject { tenant, id: agent_id, permissions: &[], session: None }, now, lifetime)
    }

    fn sign(
        &self,
        audience: Audience,
        subject: Subject<'_>,
        now: SystemTime,
        lifetime: Duration,
    ) -> anyhow::Result<Issued> {
        let id = Uuid::new_v4();
        let from = unix_seconds(now);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: audience.name().to_owned(),
            sub: subject.id.to_owned(),
            tenant: subject.tenant.to_owned(),
            permissions: subject.permissions.iter().map(|permission| permission.as_str().to_owned()).collect(),
            jti: id.to_string(),
            sid: subject.session.map(|session| session.to_string()),
            iat: from,
            nbf: from,
            exp: from.saturating_add(lifetime.as_secs()),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(audience.typ().to_owned());
        header.kid = Some(self.id.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.key).context("sign a token")?;
        Ok(Issued { token, id, expires: claims.expires() })
    }
}
