//! Who is calling: signs and verifies the tokens of users and agents.
//!
//! A user's token opens the API, an agent's opens the way in, and neither works for the other: they differ in `typ` and
//! `aud`. The algorithm is fixed to Ed25519 and a token's `kid` only chooses among the keys that auth publishes.
//!
//! Not here: passwords, sessions and who holds which permission; those are the auth service's.

pub mod bearer;
mod follow;
mod keys;
mod known;
mod permission;
mod principal;
mod revoked;
mod scope;
mod signer;
mod token;
mod verifier;

pub use follow::WAIT;
pub use keys::Keys;
pub use permission::Permission;
pub use principal::{AgentIdentity, Principal};
pub use revoked::{Credential, Revocation};
pub use scope::Scope;
pub use signer::{Issued, Signer, Subject};
pub use verifier::{Feed, Verifier};
