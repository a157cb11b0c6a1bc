//! Refresh tokens: what they look like, what is kept of them, and which one follows which.

use data_encoding::BASE64URL_NOPAD;
use fault::Fault;
use sha2::{Digest as _, Sha256};

use crate::marks::hmac;

/// Lets secret scanners recognise what leaked.
const PREFIX: &str = "slr_";

/// SHA-256 of a refresh token. The token has 256 random bits, so a slow hash would add nothing.
pub type TokenHash = [u8; 32];

/// The first token of a session.
pub(crate) fn first() -> fault::Result<String> {
    Ok(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&random()?)))
}

/// What makes a session's tokens follow each other.
pub(crate) fn random() -> fault::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Fault::internal(anyhow::anyhow!("get random bytes: {error}")))?;
    Ok(bytes)
}

/// The token after `token`, always the same one, so that whoever lost the answer can be given it again. Neither the session's
/// secret nor the token alone tells it.
pub(crate) fn successor(secret: &[u8], token: &str) -> String {
    format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&hmac(secret, token.as_bytes())))
}

pub(crate) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}
