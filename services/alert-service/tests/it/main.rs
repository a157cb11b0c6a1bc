//! The alert-service against real Postgres and NATS.
#![expect(clippy::unwrap_used, reason = "a test that cannot be prepared must stop at once")]

mod absence;
mod by_hand;
mod kill;
mod levels;
mod list;
mod outbox;
mod presentation;
mod replicas;
mod retention;
mod support;
mod transitions;
mod versions;
