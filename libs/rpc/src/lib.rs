//! Makes every gRPC server and channel between services: mutual TLS from one CA, one table of who may call whom,
//! trace context, health, drain, replicas, certificates that are renewed.
//!
//! The name in a certificate is the service. The user on whose behalf a service calls travels along as a bearer token
//! ([`forward`]); the service that owns the thing checks it.

mod callers;
mod channel;
mod identity;
mod incoming;
mod reloading;
mod server;

pub use channel::{Channel, channel, forward};
pub use identity::{Identity, Settings};
pub use reloading::Reloading;
pub use server::serve;
