//! The dispatcher against real Postgres, NATS and HTTP receivers.
#![expect(clippy::unwrap_used, reason = "a test that cannot be prepared must stop at once")]

mod addresses;
mod bulkheads;
mod deliveries;
mod kill;
mod order;
mod receiver;
mod receivers;
mod retention;
mod support;
mod throughput;
