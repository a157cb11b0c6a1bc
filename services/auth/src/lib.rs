//! Knows who people are and signs what proves it.
//!
//! Everything lives in Postgres, so replicas need not know each other: the signing keys too, the first one made by whoever
//! starts first. Tokens are verified elsewhere with the public keys alone, which keeps this service off every hot path, and
//! lets the rest of Sightline work on while it is away. What is taken back (a session, an agent's token) is told to every
//! verifier at once: each has a question waiting here, see [`keyring`].

pub mod app;
pub mod bootstrap;
pub mod config;
pub mod grpc;
pub mod keyring;
pub mod keyset;
pub mod limits;
pub mod login;
pub mod marks;
pub mod metrics;
pub mod password;
pub mod refresh;
pub mod session;
pub mod store;
