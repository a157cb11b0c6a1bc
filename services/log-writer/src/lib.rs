//! Stores logs and process snapshots, and searches them.
//!
//! Envelopes of all shards are read by shared consumers. A transaction takes what has arrived while the one before it
//! ran, inserts each part's `(tenant, batch, part)` into `applied`, and copies the rows of the parts that were new. The
//! broker hears of it after the commit. So a part that is delivered again, by whichever way, is stored once.
//!
//! While Postgres is away nothing is acknowledged and nothing more is taken; an envelope that can never be stored goes
//! to the dead letters with its reason, and its neighbours are stored.

pub mod app;
pub mod config;

mod consumer;
mod copy;
mod envelope;
mod grpc;
mod known;
mod maintenance;
mod metrics;
mod pace;
mod record;
mod resources;
mod search;
mod store;
