//! The store on a real Postgres.
#![expect(clippy::unwrap_used, reason = "a test that cannot be prepared must stop at once")]

mod errors;
mod leases;
mod migrations;
mod outbox;
mod pools;
mod upkeep;
