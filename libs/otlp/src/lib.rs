//! Reads, checks, cuts, splits and stamps OTLP metrics and logs on the wire.
//!
//! Nothing here builds an owned tree of what it reads. A receiver calls [`check`] on a request: it is walked once, and the
//! answer has a [`Checked`] for each `ResourceMetrics` or `ResourceLogs`, whose bytes are handed on as they arrived
//! ([`Checked::kept`] rebuilds only those with refused items). [`split`] cuts what is too large for a message, and [`Stamp`]
//! adds attributes by appending a second `resource` field, which protobuf merges with the first. OTLP as JSON is written
//! as protobuf first ([`from_json`]).
//!
//! What is accepted is bounded in what it can become ([`Limits`]): no header, name, attribute or bucket is repeated more
//! often than the bytes of the request pay for, within a factor (tests/amplification.rs).
//!
//! A consumer calls [`Metrics::parse`] or [`Logs::parse`]: after that one check the iterators cannot fail, and what they
//! yield borrows from the bytes. Whatever this crate accepts, prost accepts too (tests/against_prost.rs); it is stricter
//! in refusing groups, two kinds of data in one metric and deep nesting.
//!
//! Layers, each knowing those before it only: wire; schema, signal; walk, value, limits; judge (one item); cut, split,
//! stamp, locate, json; check (a request); metrics, logs (what readers see).

mod check;
mod cut;
mod json;
mod judge;
mod limits;
mod locate;
mod logs;
mod metrics;
mod schema;
mod signal;
mod split;
mod stamp;
mod value;
mod walk;
mod wire;

pub use check::{Checked, Walk, check, count_resources};
pub use json::{BadJson, FromJson, Unknown, from_json};
pub use judge::MAX_NESTING;
pub use limits::{LABELS_OF_OURS, Limits, MOST_POINT_ATTRIBUTES, Reason, Refusals, Rules};
pub use locate::describe;
pub use logs::{LogRecord, Logs, ResourceLogs, ScopeLogs};
pub use metrics::{
    Floats, Histogram, Kind, Metric, Metrics, Number, Point, ResourceMetrics, Sample, ScopeMetrics, Summary, U64s,
};
pub use signal::Signal;
pub use split::{Most, Piece, split};
pub use stamp::{RESERVED_PREFIX, Stamp, append_stamped};
pub use value::{Attribute, Attributes, Value};
pub use wire::Invalid;
