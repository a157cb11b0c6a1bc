//! Reports one host to a gateway: metrics, lines of log files, snapshots of its processes.
//!
//! Two things are produced for keeping: a request of metrics every interval and a request of log records whenever lines
//! appear. Both go the same way: encoded as OTLP, given
//! a batch id, written to the [`spool`], sent by [`sender`] until a gateway acknowledges, removed. The id stays with
//! the request through retries and restarts, so a gateway can
//! tell a repetition from news, and a log file's position counts as read only together with the request that holds its
//! lines ([`tail`], [`positions`]). Everything that can be
//! lost is on one of two sides of a single rename: before it, lines are still in their file; after it, they are in
//! the spool.
//!
//! Process snapshots are of interest only while they are new: they are sent on a stream when it is there and skipped
//! when it is not ([`streams`]).
//! Commands are received and refused.
//!
//! Each module uses only those below it: [`app`] all of them; [`tail`] and [`sender`] the [`spool`], the spool
//! [`positions`], and everybody [`signal`], [`metrics`], [`host_root`].

pub mod app;
pub mod attributes;
pub mod clock;
pub mod collect;
pub mod config;
pub mod gateway;
pub mod host_root;
pub mod identity;
pub mod metrics;
mod patience;
pub mod positions;
pub mod processes;
pub mod procfs;
pub mod sampling;
pub mod sender;
pub mod signal;
pub mod spool;
pub mod state;
pub mod streams;
pub mod tail;
