//! The auth service on a real Postgres.

#![expect(clippy::unwrap_used, reason = "a test that cannot be prepared must stop at once")]

mod agents;
mod keys;
mod limits;
mod login;
mod revocations;
mod sessions;
mod start;
mod support;
