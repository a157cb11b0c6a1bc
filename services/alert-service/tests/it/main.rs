//! The alert-service against real Postgres and NATS.
#![expect(clippy::unwrap_used, reason = "a test that cannot be prepared must stop at once")]

mod absence;
mod kill;
mod list;
mod retention;
mod support;
mod transitions;
