//! The metric-writer against a real broker and a real VictoriaMetrics.

mod front;
mod support;
mod kill_tmp;

mod away;
mod poison;
mod restart;
mod storing;
