//! OTLP metrics read as Prometheus series: one reading for whoever stores, evaluates or shows them.
//!
//! Names are explained in `name`, labels in `labels`. Cumulative sums and gauges are one series a point, histograms
//! `_bucket`, `_sum` and `_count`, summaries `quantile`, `_sum` and `_count` (OpenTelemetry specification, "Prometheus and
//! OpenMetrics Compatibility", section "OTLP Metric points to Prometheus"). A point that says "no recorded value" is
//! Prometheus's stale marker. What a resource says about itself beyond the labels of every series is one `target_info`.
//!
//! Reading the same bytes twice gives the same samples: nothing here looks at a clock.

mod cache;
mod labels;
mod name;
mod read;
mod unit;
mod wanted;

pub use labels::{Labels, MAX_LABELS, Series};
pub use model::label_name;
pub use name::{Type, metric_name};
pub use read::{Reader, Sample, Tally};
pub use wanted::{NameKey, WantedName, name_keys};
