//! The metric-writer against a real broker and a real VictoriaMetrics.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod front;
mod support;

mod away;
mod poison;
mod replicas;
mod restart;
mod storing;
