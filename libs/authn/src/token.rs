//! What is inside a token, and what must be true of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fault::{Fault, Kind};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

pub(crate) const ISSUER: &str = "sightline";
/// How far the clocks of two machines may differ.
pub(crate) const LEEWAY: Duration = Duration::from_secs(5);
/// Our own are under 2 KiB; anything longer is not worth the parsing.
pub(crate) const MAX_BYTES: usize = 8 * 1024;

/// Who a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// People and what acts for them, at the API.
    Api,
    /// Agents, at the gateway.
    Ingest,
}

impl Audience {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Api => "sightline-api",
            Self::Ingest => "sightline-ingest",
        }
    }

    /// RFC 9068 for users; ours for agents.
    pub(crate) fn typ(self) -> &'static str {
        match self {
            Self::Api => "at+jwt",
            Self::Ingest => "agent+jwt",
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) aud: String,
    pub(crate) sub: String,
    pub(crate) tenant: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) permissions: Vec<String>,
    pub(crate) jti: String,
    /// The session that a user's token came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sid: Option<String>,
    pub(crate) iat: u64,
    pub(crate) nbf: u64,
    pub(crate) exp: u64,
}

impl Claims {
    pub(crate) fn expires(&self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.exp)).unwrap_or(UNIX_EPOCH)
    }
}

/// Seconds since 1970; a clock before that reads as 0, and then every token is from the future.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The id of the key that `token` says it was signed with, after everything else in the header was found right.
pub(crate) fn key_id(token: &str, audience: Audience) -> fault::Result<String> {
    if token.len() > MAX_BYTES {
        return Err(invalid(audience));
    }
    // An `alg` that the library does not know, `none` among them, fails here already.
    let Header { typ, alg, kid, crit, .. } = jsonwebtoken::decode_header(token).map_err(|_| invalid(audience))?;
    if alg != Algorithm::EdDSA || crit.is_some() {
        return Err(invalid(audience));
    }
    match typ.as_deref() {
        Some(typ) if typ.eq_ignore_ascii_case(audience.typ()) => kid.ok_or_else(|| invalid(audience)),
        Some("at+jwt" | "agent+jwt") => Err(wrong_kind(audience)),
        _ => Err(invalid(audience)),
    }
}

/// Verifies signature and claims.
pub(crate) fn verify(token: &str, key: &DecodingKey, audience: Audience) -> fault::Result<Claims> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = LEEWAY.as_secs();
    validation.validate_nbf = true;
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[audience.name()]);
    let claims = jsonwebtoken::decode::<Claims>(token, key, &validation)
        .map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => expired(audience),
            _ => {
                tracing::debug!(%error, "token refused");
                invalid(audience)
            }
        })?
        .claims;
    let latest = unix_seconds(SystemTime::now()).saturating_add(LEEWAY.as_secs());
    if claims.iat > latest || claims.sub.is_empty() || claims.tenant.is_empty() {
        return Err(invalid(audience));
    }
    Ok(claims)
}

pub(crate) fn missing(audience: Audience) -> Fault {
    let detail = match audience {
        Audience::Api => "send an access token as `Authorization: Bearer <token>`; POST /api/v1/auth/login gives one",
        Audience::Ingest => "send the agent's token as `authorization: Bearer <token>`",
    };
    Fault::new(Kind::Unauthenticated, "token_missing", detail)
}

fn expired(audience: Audience) -> Fault {
    let detail = match audience {
        Audience::Api => "the access token has expired; refresh it, or log in again",
        Audience::Ingest => "the agent's token has expired; issue a new one and put it in the agent's token file",
    };
    Fault::new(Kind::Unauthenticated, "token_expired", detail)
}

/// For a token that was good: whoever holds it may know.
pub(crate) fn revoked(audience: Audience) -> Fault {
    let detail = match audience {
        Audience::Api => "the session was ended; log in again",
        Audience::Ingest => "the agent's token was taken back; issue a new one and put it in the agent's token file",
    };
    Fault::new(Kind::Unauthenticated, "token_revoked", detail)
}

/// One answer for every way in which a token can be forged or broken: a forger learns nothing from it.
pub(crate) fn invalid(audience: Audience) -> Fault {
    let detail = match audience {
        Audience::Api => "the access token is not valid here; log in again",
        Audience::Ingest => "the agent's token is not valid here; issue a new one and put it in the agent's token file",
    };
    Fault::new(Kind::Unauthenticated, "token_invalid", detail)
}

fn wrong_kind(audience: Audience) -> Fault {
    let detail = match audience {
        Audience::Api => "this is an agent's token, and the API takes a user's; log in to get one",
        Audience::Ingest => "this is a user's token, and telemetry takes an agent's; issue one for the agent",
    };
    Fault::new(Kind::Unauthenticated, "token_wrong_kind", detail)
}
