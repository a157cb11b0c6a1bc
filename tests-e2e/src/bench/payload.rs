//! The reference payload: requests of 1,000 points or lines, each of one agent.
//!
//! A point is about 92 bytes with four attributes, 20 metrics, half gauges and half cumulative sums, one point a series;
//! a line is about 175 bytes; a resource has seven attributes. Bodies are encoded once; only their times are written
//! anew for each request, so that every request is a batch of its own.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use crate::otlp::attribute;

pub const ITEMS: usize = 1_000;
const METRICS: usize = 20;

/// Stands for the time in an encoded body; no other eight bytes of it are alike.
const MARK: u64 = 0x0123_4567_89ab_cdef;

/// What a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Metrics,
    Logs,
}

impl Signal {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// An encoded request of one agent.
pub struct Template {
    body: Vec<u8>,
    times: Vec<usize>,
}

impl Template {
    #[must_use]
    pub fn new(signal: Signal, agent: usize) -> Self {
        let body = match signal {
            Signal::Metrics => metrics(agent).encode_to_vec(),
            Signal::Logs => logs(agent).encode_to_vec(),
        };
        let mark = MARK.to_le_bytes();
        let times: Vec<usize> =
            body.windows(8).enumerate().filter(|(_, window)| **window == mark).map(|(at, _)| at).collect();
        assert_eq!(times.len(), ITEMS, "every item has one time");
        Self { body, times }
    }

    /// The request as of `time`, Unix nanoseconds.
    #[must_use]
    pub fn at(&self, time: u64) -> Bytes {
        let mut body = self.body.clone();
        for at in &self.times {
            body[*at..at + 8].copy_from_slice(&time.to_le_bytes());
        }
        body.into()
    }

    /// Bytes of one item, with its share of everything around it.
    #[must_use]
    pub fn bytes_per_item(&self) -> f64 {
        self.body.len() as f64 / ITEMS as f64
    }
}

fn resource(agent: usize) -> Option<Resource> {
    let attributes = [
        ("host.name", format!("bench-{agent:03}.example.net")),
        ("host.id", format!("4c1d9e7a5b2f{agent:04}")),
        ("service.name", "checkout".to_owned()),
        ("service.version", "2026.11.3".to_owned()),
        // Without it all of them were one resource.
        ("service.instance.id", format!("checkout-{agent}")),
        ("cloud.region", "eu-central-1".to_owned()),
        ("deployment.environment", "production".to_owned()),
    ];
    let attributes = attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    Some(Resource { attributes, ..Resource::default() })
}

fn metrics(agent: usize) -> ExportMetricsServiceRequest {
    let metrics = (0..METRICS).map(|number| {
        let points = (0..ITEMS / METRICS).map(|point| NumberDataPoint {
            time_unix_nano: MARK,
            attributes: vec![
                attribute("path", &format!("/api/{point}")),
                attribute("method", "GET"),
                attribute("status", "200"),
                attribute("shard", &format!("{point:02}")),
            ],
            value: Some(number_data_point::Value::AsDouble((agent * 31 + number * 7 + point) as f64 * 1.37)),
            ..NumberDataPoint::default()
        });
        let data = if number % 2 == 0 {
            metric::Data::Gauge(Gauge { data_points: points.collect() })
        } else {
            metric::Data::Sum(Sum {
                data_points: points.collect(),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            })
        };
        Metric { name: format!("bench.http.server.metric_{number}"), data: Some(data), ..Metric::default() }
    });
    let scope = InstrumentationScope { name: "bench".to_owned(), ..InstrumentationScope::default() };
    let scope_metrics =
        vec![ScopeMetrics { scope: Some(scope), metrics: metrics.collect(), ..ScopeMetrics::default() }];
    let metrics = ResourceMetrics { resource: resource(agent), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![metrics] }
}

fn logs(agent: usize) -> ExportLogsServiceRequest {
    let records = (0..ITEMS).map(|number| LogRecord {
        time_unix_nano: MARK,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(format!(
                "request {:016x} from 10.{}.{}.{} for /cart/{number} answered in {} ms, {} bytes",
                number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                agent % 256,
                number % 256,
                number * 7 % 256,
                number * 13 % 900,
                number * 97 % 65_536,
            ))),
        }),
        attributes: vec![attribute("thread", &format!("worker-{}", number % 16)), attribute("logger", "http.access")],
        ..LogRecord::default()
    });
    let scope_logs = vec![ScopeLogs { log_records: records.collect(), ..ScopeLogs::default() }];
    let logs = ResourceLogs { resource: resource(agent), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
}
