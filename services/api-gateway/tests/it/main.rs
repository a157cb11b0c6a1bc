//! The api-gateway on a real metrics store and a real broker, with the services behind it away: what it decides itself.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be prepared must stop at once, and say why")]

mod live;
mod names;
mod permissions;
mod prometheus;
mod status;
mod store;
mod support;
mod tenants;
