//! Metrics that are declared, not wired: name, help, unit and labels of each stand in one place, [`metrics!`](crate::metrics!).

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::{MetricType, TypedMetric};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
pub use prometheus_client::registry::{Registry, Unit};

/// A gauge that is no whole number: seconds, shares.
pub type FloatGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// One metric for each combination of its labels' values. Values are words of our own code, never of a client's: so there
/// are few.
#[derive(Clone, Debug)]
pub struct By<M, const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, M, New<M>>,
}

impl<M: Clone, const N: usize> By<M, N> {
    /// A family with these labels; [`metrics!`](crate::metrics!) calls it.
    pub fn new(names: [&'static str; N], new: fn() -> M) -> Self {
        Self { names, family: Family::new_with_constructor(New(new)) }
    }

    /// The metric with these values, in the order in which the labels were declared.
    pub fn of(&self, values: [&'static str; N]) -> M {
        let labels = std::array::from_fn(|index| (self.names[index], values[index]));
        self.family.get_or_create_owned(&labels)
    }
}

impl<M: EncodeMetric + TypedMetric + Clone, const N: usize> EncodeMetric for By<M, N> {
    fn encode(&self, encoder: prometheus_client::encoding::MetricEncoder) -> Result<(), std::fmt::Error> {
        self.family.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// How a family makes a metric for values that it meets for the first time.
#[derive(Debug)]
pub struct New<M>(fn() -> M);

impl<M> Clone for New<M> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<M> MetricConstructor<M> for New<M> {
    fn new_metric(&self) -> M {
        (self.0)()
    }
}

/// Declares every metric of a service.
///
/// The first line of a field's documentation is the help that `/metrics` shows; the field's name behind the prefix is the
/// metric's name, with its unit appended where one stands in brackets, and `_total` for counters. Kinds are `Counter`,
/// `Gauge`, `FloatGauge` and `Histogram = [buckets]`; `by [labels]` makes it a [`By`].
///
/// ```
/// telemetry::metrics! {
///     /// Clones share the values.
///     pub struct Metrics in "sightline_example" {
///         /// Lines read
///         pub lines: Counter,
///         /// Requests by what they were told
///         pub requests: Counter by [outcome],
///         /// How long they took
///         pub duration [Seconds]: Histogram = [0.01, 0.1, 1.0],
///     }
/// }
///
/// let mut registry = telemetry::metrics::Registry::default();
/// let metrics = Metrics::register(&mut registry);
/// metrics.lines.inc();
/// metrics.requests.of(["accepted"]).inc();
/// metrics.duration.observe(0.2);
/// ```
#[macro_export]
macro_rules! metrics {
    (
        $(#[$about:meta])*
        $vis:vis struct $name:ident in $prefix:literal {
            $(
                #[doc = $help:literal]
                $(#[doc = $more:literal])*
                $seen:vis $field:ident $([$unit:ident])? : $kind:ident $(by [$($label:ident),+ $(,)?])? $(= [$($bucket:expr),+ $(,)?])?
            ),+ $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $(
                #[doc = $help]
                $(#[doc = $more])*
                $seen $field: $crate::metrics!(@type $kind $([$($label),+])?),
            )+
        }

        impl $name {
            /// Registers them with what `/metrics` shows.
            $vis fn register(registry: &mut $crate::metrics::Registry) -> Self {
                let metrics = Self {
                    $($field: $crate::metrics!(@new $kind $([$($label),+])? $(= [$($bucket),+])?),)+
                };
                let registry = registry.sub_registry_with_prefix($prefix);
                $($crate::metrics!(@register registry, stringify!($field), $help.trim(), metrics.$field.clone() $(, $unit)?);)+
                metrics
            }
        }
    };
    (@type $kind:ident) => { $crate::metrics::$kind };
    (@type $kind:ident [$($label:ident),+]) => {
        $crate::metrics::By<$crate::metrics::$kind, { [$(stringify!($label)),+].len() }>
    };
    (@new Histogram = [$($bucket:expr),+]) => { $crate::metrics::Histogram::new([$($bucket),+]) };
    (@new Histogram [$($label:ident),+] = [$($bucket:expr),+]) => {
        $crate::metrics::By::new([$(stringify!($label)),+], || $crate::metrics::Histogram::new([$($bucket),+]))
    };
    (@new $kind:ident) => { <$crate::metrics::$kind>::default() };
    (@new $kind:ident [$($label:ident),+]) => {
        $crate::metrics::By::new([$(stringify!($label)),+], <$crate::metrics::$kind>::default)
    };
    (@register $registry:ident, $name:expr, $help:expr, $metric:expr) => { $registry.register($name, $help, $metric) };
    (@register $registry:ident, $name:expr, $help:expr, $metric:expr, $unit:ident) => {
        $registry.register_with_unit($name, $help, $crate::metrics::Unit::$unit, $metric)
    };
}

#[cfg(test)]
mod tests {
    use super::Registry;

    crate::metrics! {
        /// What a service counts.
        struct Metrics in "sightline_example" {
            /// Lines read
            lines: Counter,
            /// Requests by port and what they were told
            requests: Counter by [port, outcome],
            /// Age of the oldest
            age [Seconds]: FloatGauge,
            /// How long requests took, by port
            duration [Seconds]: Histogram by [port] = [0.1, 1.0],
        }
    }

    #[test]
    fn what_is_declared_is_what_is_shown() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.lines.inc();
        metrics.requests.of(["grpc", "accepted"]).inc_by(2);
        metrics.clone().requests.of(["grpc", "accepted"]).inc();
        metrics.age.set(1.5);
        metrics.duration.of(["http"]).observe(0.5);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "# HELP sightline_example_lines Lines read.",
            "sightline_example_lines_total 1",
            r#"sightline_example_requests_total{port="grpc",outcome="accepted"} 3"#,
            "sightline_example_age_seconds 1.5",
            r#"sightline_example_duration_seconds_bucket{le="1.0",port="http"} 1"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
    }
}
