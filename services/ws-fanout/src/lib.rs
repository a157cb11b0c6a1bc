//! Shows metrics, logs and alerts live.
//!
//! A topic follows its streams only while somebody listens, each stream by a task of its own and once for all who listen. What
//! belongs to a tenant for whom nobody listens is passed over without being unpacked; of the rest, clients are found by
//! tenant and metric name before their selectors are asked, and each item is serialized once, when first wanted.
//!
//! This is a view, not a record. Whatever a client does not get it is told of: frames that it read too slowly for
//! (`dropped`), and times that this process was too late for (`gap`); searches and queries find what was in them.

pub mod app;
pub mod config;

mod audience;
mod client;
mod follower;
mod frame;
mod kind;
mod metrics;
mod places;
mod queue;
mod reading;
mod socket;
mod topic;
mod wanted;
