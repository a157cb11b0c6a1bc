//! The auth service on a real Postgres.

mod agents;
mod login;
mod sessions;
mod start;
mod support;
