//! Reads, checks, cuts, splits and stamps OTLP metrics and logs on the wire.
//!
//! Nothing here builds an owned tree of what it reads. A receiver calls [`check_metrics`] or [`check_logs`] on a request:
//! it is walked once, and the answer has a [`Part`] for each `ResourceMetrics` or `ResourceLogs`, whose bytes are handed on as
//! they arrived ([`Part::kept`] rebuilds only those with refused items). [`split`] cuts what is too large for a message,
//! and [`Stamp`] adds attributes by appending a second `resource` field, which protobuf merges with the first.
//!
//! A consumer calls [`Metrics::parse`] or [`Logs::parse`]: after that one check the iterators cannot fail, and what they
//! yield borrows from the bytes. Whatever this crate accepts, prost accepts too (tests/against_prost.rs); it is stricter
//! in refusing groups, two kinds of data in one metric and deep nesting.

mod check;
mod cut;
mod logs;
mod metrics;
mod schema;
mod split;
mod stamp;
mod value;
mod walk;
mod wire;

pub use check::{Limits, MAX_NESTING, Part, Reason, Refusals, Walk, check_logs, check_metrics};
pub use logs::{LogRecord, Logs, ResourceLogs, ScopeLogs};
pub use metrics::{
    Floats, Histogram, Kind, Metric, Metrics, Number, Point, ResourceMetrics, Sample, ScopeMetrics, Summary, U64s,
};
pub use split::{Piece, Signal, split};
pub use stamp::{RESERVED_PREFIX, Stamp, append_part};
pub use value::{Attribute, Attributes, Value};
pub use wire::Invalid;
