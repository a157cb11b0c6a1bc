//! The log-writer against a real PostgreSQL and a real broker.
#![expect(clippy::unwrap_used, reason = "tests")]

mod outages;
mod partitions;
mod processes;
mod search;
mod slow;
mod storing;
mod support;
