//! The ingest-gateway against a real broker and a real Redis.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod clients;
mod credentials;
mod drain;
mod json;
mod outage;
mod pair;
mod passing;
mod support;
mod tls;
mod worst;
