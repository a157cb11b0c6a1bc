//! Knows who people are and signs what proves it.
//!
//! Everything lives in Postgres, so replicas need not know each other: the signing key too, made by whoever starts first.
//! Tokens are verified elsewhere with the public key alone, which keeps this service off every hot path, and lets the
//! rest of Sightline work on while it is away. Access tokens cannot be revoked, which is why they last ten minutes;
//! what can be revoked is the session that renews them.

pub mod app;
pub mod bootstrap;
pub mod config;
pub mod grpc;
pub mod limits;
pub mod login;
pub mod metrics;
pub mod password;
pub mod session;
pub mod store;
