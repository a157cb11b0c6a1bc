//! The bus on a real nats-server.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod account;
mod batch;
mod claim;
mod consume;
mod follow;
mod outage;
mod publish;
mod rights;
mod room;
mod shards;
mod support;
mod trial;
