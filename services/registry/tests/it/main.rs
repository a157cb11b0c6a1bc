//! The registry on a real Postgres, NATS and Redis.
#![expect(clippy::unwrap_used, reason = "a test that cannot be prepared must stop at once")]

mod api;
mod judging;
mod presence;
mod sightings;
mod support;
