//! Brings metrics from the broker into VictoriaMetrics.
//!
//! A task for each shard pulls envelopes from the durable consumer `metric-writer`, which all replicas share. One task
//! reads them as series (`intake`), groups them (`batch`) and writes each group by remote write 1.0; the broker hears
//! "done" after the store has answered, never before. While the store is away the groups are held, nothing more is
//! pulled, and the broker is told to wait. What the store refuses for ever is narrowed down to the envelope at fault,
//! which becomes a dead letter; its neighbours are stored.
//!
//! Writing is idempotent: the same envelope always becomes the same labels, times and values, which the store keeps once
//! (`-dedup.minScrapeInterval=1ms`). So whatever is in doubt is written again.
//!
//! VictoriaMetrics answers before it flushes, and a killed one loses its last seconds. `recovery` notices that it is
//! another process than before and writes again what the streams still hold of that time.

pub mod app;
pub mod config;

mod batch;
mod intake;
mod marks;
mod metrics;
mod recovery;
mod remote_write;
mod samples;
mod store;
mod writer;
