//! The ingest-gateway against a real broker and a real Redis.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod credentials;
mod drain;
mod outage;
mod passing;
mod support;
mod tls;
