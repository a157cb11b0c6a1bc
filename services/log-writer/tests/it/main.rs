//! The log-writer against a real PostgreSQL and a real broker.
#![expect(clippy::unwrap_used, reason = "tests")]

mod search;
mod storing;
mod support;
