//! Builds the OTLP metrics of one scope: one metric a name, one data point a series.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as PointValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ScopeMetrics, Sum,
};

/// When a set of points was taken. Both in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: u64,
    /// The kernel's counters begin here.
    pub boot: u64,
}

pub type Attribute<'a> = (&'static str, &'a str);

pub struct Sheet {
    scope: &'static str,
    moment: Moment,
    metrics: Vec<Metric>,
}

impl Sheet {
    pub fn new(scope: &'static str, moment: Moment) -> Self {
        Self { scope, moment, metrics: Vec::new() }
    }

    pub fn gauge(&mut self, name: &str, unit: &str, value: f64, attributes: &[Attribute<'_>]) {
        let point = self.point(value, 0, attributes);
        let empty = || Data::Gauge(Gauge::default());
        if let Some(Data::Gauge(gauge)) = self.metric(name, unit, empty) {
            gauge.data_points.push(point);
        }
    }

    /// A total since boot that only grows.
    pub fn counter(&mut self, name: &str, unit: &str, value: f64, attributes: &[Attribute<'_>]) {
        let point = self.point(value, self.moment.boot, attributes);
        let empty = || {
            Data::Sum(Sum {
                data_points: Vec::new(),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            })
        };
        if let Some(Data::Sum(sum)) = self.metric(name, unit, empty) {
            sum.data_points.push(point);
        }
    }

    pub fn finish(self) -> ScopeMetrics {
        let scope = InstrumentationScope { name: self.scope.to_owned(), ..InstrumentationScope::default() };
        ScopeMetrics { scope: Some(scope), metrics: self.metrics, schema_url: String::new() }
    }

    fn metric(&mut self, name: &str, unit: &str, empty: impl FnOnce() -> Data) -> Option<&mut Data> {
        let found = self.metrics.iter().position(|metric| metric.name == name);
        let index = found.unwrap_or_else(|| {
            self.metrics.push(Metric {
                name: name.to_owned(),
                unit: unit.to_owned(),
                data: Some(empty()),
                ..Metric::default()
            });
            self.metrics.len() - 1
        });
        self.metrics[index].data.as_mut()
    }

    fn point(&self, value: f64, start: u64, attributes: &[Attribute<'_>]) -> NumberDataPoint {
        NumberDataPoint {
            attributes: crate::attributes::attributes(attributes),
            start_time_unix_nano: start,
            time_unix_nano: self.moment.now,
            value: Some(PointValue::AsDouble(value)),
            ..NumberDataPoint::default()
        }
    }
}
