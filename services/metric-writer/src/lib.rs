//! Brings metrics from the broker into VictoriaMetrics.
//!
//! Replicas share the durable consumer `metric-writer` of each shard. What it brings gathers in groups (`group`), read as
//! series (`taken`); a group is laid out series by series (`samples`) and written by remote write 1.0 (`sending`), one at a
//! time (`writer`). The broker hears "done" after the store has answered, never before. While the store is away two groups
//! are held, nothing more is pulled, and the broker is told to wait. What the store refuses, while it takes what is known to
//! be good, is narrowed down to the envelope at fault, which becomes a dead letter; its neighbours are stored.
//!
//! Writing is idempotent: the same envelope always becomes the same labels, times and values, which the store keeps once
//! (`-dedup.minScrapeInterval=1ms`). So whatever is in doubt is written again.
//!
//! VictoriaMetrics answers before it flushes, and a killed one loses its last seconds. `recovery` notices that it is
//! another process than before, and `replay` writes again what the streams still hold of that time.

pub mod app;
pub mod config;

mod group;
mod known;
mod marks;
mod metrics;
mod recovery;
mod remote_write;
mod replay;
mod samples;
mod sending;
mod store;
mod taken;
mod writer;

/// What the broker knows it by.
const SERVICE: &str = "metric-writer";
