//! OTLP metrics read as Prometheus series: one reading for whoever stores, evaluates or shows them.
//!
//! Names are explained in `name`, labels in `prepare`. Cumulative sums and gauges are one series a point, histograms
//! `_bucket`, `_sum` and `_count`, summaries `quantile`, `_sum` and `_count` (OpenTelemetry specification, "Prometheus and
//! OpenMetrics Compatibility", section "OTLP Metric points to Prometheus"). A point that says "no recorded value" is
//! Prometheus's stale marker, for the buckets whose bounds it carries. What a resource says about itself beyond the labels
//! of every series is one `target_info`.
//!
//! Two things of one envelope never become one series, and what cannot be kept apart is passed over and counted ([`Skip`]). Two points of
//! one series within a millisecond are both given out; a store keeps one of them.
//!
//! Reading the same bytes twice gives the same samples, whoever reads them: neither a clock nor what was read before decides
//! what they are.

mod cache;
mod labels;
mod name;
mod owners;
mod point;
mod prepare;
mod read;
mod resource;
mod skip;
mod unit;
mod wanted;

pub use cache::CacheUse;
pub use labels::{Labels, Series};
pub use model::{label_name, label_value};
pub use name::Type;
pub use prepare::MAX_LABELS;
pub use read::{Reader, Sample, Tally};
pub use skip::{Skip, Skipped};
pub use wanted::{NameKey, WantedName, name_keys};
