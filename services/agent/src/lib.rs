//! Reports one host to a gateway: metrics, lines of log files, snapshots of its processes.
//!
//! Two things are produced for keeping: a batch of metrics every interval and a batch of log records whenever lines
//! appear. Both go the same way: built as an OTLP request, given
//! a batch id, written to the [`spool`], sent by [`sender`] until a gateway acknowledges, removed. The id stays with
//! the batch through retries and restarts, so a gateway can
//! tell a repetition from news, and a log file's position counts as read only together with the batch that holds its
//! lines ([`tail`]). Everything that can be
//! lost is on one of two sides of a single rename: before it, lines are still in their file; after it, they are in
//! the spool.
//!
//! Process snapshots are of interest only while they are new: they are sent on a stream when it is there and skipped
//! when it is not ([`streams`]).
//! Commands are received and refused.

pub mod app;
pub mod clock;
pub mod collect;
pub mod config;
pub mod gateway;
pub mod identity;
pub mod metrics;
pub mod processes;
pub mod procfs;
pub mod sampling;
pub mod sender;
pub mod spool;
pub mod state;
pub mod streams;
pub mod tail;
