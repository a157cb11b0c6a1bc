//! OTLP requests as any SDK would send them.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// Unix nanoseconds of now.
#[must_use]
pub fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// A string attribute.
#[must_use]
pub fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    }
}

fn resource(host: &str) -> Option<Resource> {
    Some(Resource { attributes: vec![attribute("host.name", host)], ..Resource::default() })
}

/// Log lines of one host, a microsecond apart from `time` on.
#[must_use]
pub fn logs(host: &str, time: u64, lines: impl IntoIterator<Item = String>) -> ExportLogsServiceRequest {
    let records = lines.into_iter().zip(0u64..).map(|(line, index)| LogRecord {
        time_unix_nano: time + index * 1_000,
        severity_number: 9,
        body: Some(AnyValue { value: Some(Value::StringValue(line)) }),
        ..LogRecord::default()
    });
    let scope_logs = vec![ScopeLogs { log_records: records.collect(), ..ScopeLogs::default() }];
    let logs = ResourceLogs { resource: resource(host), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
}

/// Points of one gauge of one host: `(time, value)`.
#[must_use]
pub fn gauge(host: &str, name: &str, points: impl IntoIterator<Item = (u64, f64)>) -> ExportMetricsServiceRequest {
    series(host, name, points.into_iter().map(|(time, value)| (Vec::new(), time, value)))
}

/// Points of several series of one gauge of one host: `(attributes, time, value)`.
#[must_use]
pub fn series(
    host: &str,
    name: &str,
    points: impl IntoIterator<Item = (Vec<KeyValue>, u64, f64)>,
) -> ExportMetricsServiceRequest {
    let data_points = points.into_iter().map(|(attributes, time, value)| NumberDataPoint {
        attributes,
        time_unix_nano: time,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    });
    let metric = Metric {
        name: name.to_owned(),
        data: Some(metric::Data::Gauge(Gauge { data_points: data_points.collect() })),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let metrics = ResourceMetrics { resource: resource(host), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![metrics] }
}
