//! Shows metrics, logs and alerts live.
//!
//! A topic follows its streams only while somebody listens, once for all who listen. Each item is decoded once and
//! serialized once; a client gets it when its tenant and its selector say so. A client that reads too slowly loses the
//! oldest frames of its bounded queue and is told how many; one that does not read at all is closed.
//!
//! This is a view, not a record: what a client missed, search and queries find.

pub mod app;
pub mod config;

mod client;
mod event;
mod metrics;
mod queue;
mod socket;
mod topic;
