//! The store on a real Postgres.
#![expect(clippy::unwrap_used, reason = "a test that cannot be prepared must stop at once")]

mod errors;
mod upkeep;
