//! Holds the walk against prost: whatever it accepts prost accepts, with the same items, before and after cutting.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp::{
    Limits, Logs, Metrics, Most, Piece, Rules, Sample, Signal, Stamp, append_stamped, check, describe, from_json, split,
};
use proptest::prelude::*;
use prost::Message as _;

fn value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        ".{0,12}".prop_map(|text| Some(Value::StringValue(text))),
        any::<bool>().prop_map(|value| Some(Value::BoolValue(value))),
        any::<i64>().prop_map(|value| Some(Value::IntValue(value))),
        any::<f64>().prop_map(|value| Some(Value::DoubleValue(value))),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(|bytes| Some(Value::BytesValue(bytes))),
    ];
    let leaf = leaf.prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|values| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }),
            prop::collection::vec(("[a-z]{1,4}", inner), 0..3).prop_map(|pairs| {
                let values = pairs.into_iter().map(|(key, value)| pair(key, value)).collect();
                AnyValue { value: Some(Value::KvlistValue(KeyValueList { values })) }
            }),
        ]
    })
}

fn pair(key: String, value: AnyValue) -> KeyValue {
    KeyValue { key, value: Some(value), ..KeyValue::default() }
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let key = prop_oneof![4 => "[a-z.]{1,8}", 1 => "sightline\\.[a-z]{1,4}", 1 => "\\PC{0,9}"];
    prop::collection::vec((key, value()).prop_map(|(key, value)| pair(key, value)), 0..5)
}

fn number_point() -> impl Strategy<Value = NumberDataPoint> {
    let value = prop_oneof![
        Just(None),
        any::<f64>().prop_map(|value| Some(number_data_point::Value::AsDouble(value))),
        any::<i64>().prop_map(|value| Some(number_data_point::Value::AsInt(value))),
    ];
    (attributes(), time(), 0u64..9, value, 0u32..2).prop_map(|(attributes, time, start, value, flags)| {
        let exemplars =
            if flags == 1 { vec![Exemplar { time_unix_nano: time, ..Exemplar::default() }] } else { Vec::new() };
        NumberDataPoint { attributes, start_time_unix_nano: start, time_unix_nano: time, exemplars, flags, value }
    })
}

const NOW: u64 = 1_790_000_000_000_000_000;

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 4 => NOW - 9..NOW, 1 => any::<u64>()]
}

fn data() -> impl Strategy<Value = Option<Data>> {
    let numbers = || prop::collection::vec(number_point(), 0..4);
    let buckets = (attributes(), prop::collection::vec(any::<u64>(), 0..4), prop::collection::vec(any::<f64>(), 0..4));
    let histogram = buckets.prop_map(|(attributes, bucket_counts, explicit_bounds)| HistogramDataPoint {
        attributes,
        bucket_counts,
        explicit_bounds,
        sum: Some(2.5),
        count: 3,
        ..HistogramDataPoint::default()
    });
    let summary = (attributes(), any::<f64>()).prop_map(|(attributes, value)| SummaryDataPoint {
        attributes,
        quantile_values: vec![ValueAtQuantile { quantile: 0.5, value }],
        ..SummaryDataPoint::default()
    });
    let exponential = attributes().prop_map(|attributes| ExponentialHistogramDataPoint {
        attributes,
        scale: -3,
        ..Default::default()
    });
    prop_oneof![
        1 => Just(None),
        4 => numbers().prop_map(|data_points| Some(Data::Gauge(Gauge { data_points }))),
        4 => (numbers(), 0i32..3, any::<bool>()).prop_map(|(data_points, aggregation_temporality, is_monotonic)| {
            Some(Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic }))
        }),
        2 => (prop::collection::vec(histogram, 0..3), 1i32..3).prop_map(|(data_points, aggregation_temporality)| {
            Some(Data::Histogram(Histogram { data_points, aggregation_temporality }))
        }),
        1 => prop::collection::vec(summary, 0..3).prop_map(|data_points| Some(Data::Summary(Summary { data_points }))),
        1 => prop::collection::vec(exponential, 0..3).prop_map(|data_points| {
            Some(Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality: 2 }))
        }),
    ]
}

fn scope() -> impl Strategy<Value = Option<InstrumentationScope>> {
    prop::option::of(("[a-z]{0,5}", attributes()).prop_map(|(name, attributes)| InstrumentationScope {
        name,
        attributes,
        ..InstrumentationScope::default()
    }))
}

fn resource() -> impl Strategy<Value = Option<Resource>> {
    prop::option::of(attributes().prop_map(|attributes| Resource { attributes, ..Resource::default() }))
}

fn metrics() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let metric = ("[a-z]{0,5}", "[a-z]{0,3}", data()).prop_map(|(name, unit, data)| Metric {
        name,
        unit,
        data,
        ..Metric::default()
    });
    let scope = (scope(), prop::collection::vec(metric, 0..4)).prop_map(|(scope, metrics)| ScopeMetrics {
        scope,
        metrics,
        schema_url: "s".into(),
    });
    let one = (resource(), prop::collection::vec(scope, 0..3)).prop_map(|(resource, scope_metrics)| ResourceMetrics {
        resource,
        scope_metrics,
        schema_url: String::new(),
    });
    prop::collection::vec(one, 0..3).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

fn logs() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let record = (attributes(), prop::option::of(value()), time(), 0i32..25).prop_map(
        |(attributes, body, time_unix_nano, severity_number)| LogRecord {
            attributes,
            body,
            time_unix_nano,
            severity_number,
            severity_text: "warn".into(),
            trace_id: vec![7; 16],
            flags: 1,
            ..LogRecord::default()
        },
    );
    let scope = (scope(), prop::collection::vec(record, 0..5)).prop_map(|(scope, log_records)| ScopeLogs {
        scope,
        log_records,
        schema_url: String::new(),
    });
    let one = (resource(), prop::collection::vec(scope, 0..3)).prop_map(|(resource, scope_logs)| ResourceLogs {
        resource,
        scope_logs,
        schema_url: "s".into(),
    });
    prop::collection::vec(one, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

/// Bytes with a few of them changed, cut or doubled.
fn mutate(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (place, what, byte) in changes {
        if bytes.is_empty() {
            break;
        }
        let at = place.index(bytes.len());
        match what % 4 {
            0 | 1 => bytes[at] = *byte,
            2 => {
                bytes.remove(at);
            }
            _ => bytes.insert(at, *byte),
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec(any::<(prop::sample::Index, u8, u8)>(), 0..4)
}

fn points(metric: &Metric) -> usize {
    match &metric.data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    }
}

fn all_metrics(request: &ExportMetricsServiceRequest) -> impl Iterator<Item = &Metric> {
    request.resource_metrics.iter().flat_map(|one| &one.scope_metrics).flat_map(|scope| &scope.metrics)
}

fn all_records(request: &ExportLogsServiceRequest) -> impl Iterator<Item = &LogRecord> {
    request.resource_logs.iter().flat_map(|one| &one.scope_logs).flat_map(|scope| &scope.log_records)
}

/// What a gateway does with a request: check, cut, stamp, concatenate.
fn handed_on(walk: &otlp::Walk<'_>, rules: &Rules) -> Vec<u8> {
    let stamp = Stamp::new().text("sightline.resource.id", "host-x").int("sightline.batch.part", 300);
    let mut out = Vec::new();
    for resource in walk.resources.iter().filter(|resource| resource.items > 0) {
        append_stamped(&mut out, &resource.kept(rules), &stamp);
    }
    out
}

fn times() -> model::Window {
    let age = std::time::Duration::from_secs(86_400);
    model::Times { ahead: age, age }.window(NOW)
}

fn tight() -> Rules {
    let limits = Limits {
        point_attributes: 3,
        record_attributes: 3,
        key_bytes: 8,
        value_bytes: 20,
        item_bytes: 120,
        buckets: 2,
        ..Limits::default()
    };
    Rules { limits, times: times() }
}

fn usual() -> Rules {
    Rules { limits: Limits::default(), times: times() }
}

fn pieces(content: &[u8], signal: Signal, items: usize, bytes: usize) -> Vec<Piece<'static>> {
    let mut pieces = Vec::new();
    split(content.into(), signal, items as u64, Most { bytes, items: 1_000_000 }, |piece| {
        pieces.push(Piece { content: piece.content.into_owned().into(), ..piece });
    });
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn metrics_that_the_walk_accepts_prost_accepts(request in metrics(), changes in changes()) {
        let bytes = mutate(request.encode_to_vec(), &changes);
        let sound = changes.is_empty();
        let prost = ExportMetricsServiceRequest::decode(&bytes[..]);
        match check(&bytes, Signal::Metrics, &tight()) {
            Err(error) => prop_assert!(!sound, "{error}"),
            Ok(walk) => {
                let decoded = prost.unwrap();
                // A metric without any kind of data counts as one.
                let items = |metric: &Metric| if metric.data.is_none() { 1 } else { points(metric) };
                let total: usize = all_metrics(&decoded).map(items).sum();
                prop_assert_eq!(walk.items + walk.refused.total(), total as u64);

                let out = ExportMetricsServiceRequest::decode(&handed_on(&walk, &tight())[..]).unwrap();
                let kept: usize = all_metrics(&out).map(points).sum();
                prop_assert_eq!(walk.items, kept as u64);
                for one in &out.resource_metrics {
                    let keys: Vec<_> = one.resource.iter().flat_map(|r| &r.attributes).map(|a| a.key.as_str()).collect();
                    let ours = keys.iter().filter(|key| key.starts_with("sightline.")).count();
                    prop_assert_eq!(ours, 2, "{:?}", keys);
                }
            }
        }
    }

    #[test]
    fn logs_that_the_walk_accepts_prost_accepts(request in logs(), changes in changes()) {
        let bytes = mutate(request.encode_to_vec(), &changes);
        let sound = changes.is_empty();
        let prost = ExportLogsServiceRequest::decode(&bytes[..]);
        match check(&bytes, Signal::Logs, &tight()) {
            Err(error) => prop_assert!(!sound, "{error}"),
            Ok(walk) => {
                let decoded = prost.unwrap();
                prop_assert_eq!(walk.items + walk.refused.total(), all_records(&decoded).count() as u64);
                let out = ExportLogsServiceRequest::decode(&handed_on(&walk, &tight())[..]).unwrap();
                prop_assert_eq!(walk.items, all_records(&out).count() as u64);
            }
        }
    }

    #[test]
    fn metrics_as_json_are_the_same_metrics(request in metrics()) {
        let json = serde_json::to_vec(&request).unwrap();
        let written = from_json(&json, Signal::Metrics, 1 << 20).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let ours = ExportMetricsServiceRequest::decode(&written.request[..]).unwrap();
        prop_assert_eq!(shown(&ours), shown(&request));
        prop_assert_eq!(written.unknown.count, 0);
    }

    #[test]
    fn logs_as_json_are_the_same_logs(request in logs()) {
        let json = serde_json::to_vec(&request).unwrap();
        let written = from_json(&json, Signal::Logs, 1 << 20).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let ours = ExportLogsServiceRequest::decode(&written.request[..]).unwrap();
        prop_assert_eq!(shown(&ours), shown(&request));
        prop_assert_eq!(written.unknown.count, 0);
    }

    #[test]
    fn readers_see_what_prost_sees(request in metrics()) {
        let bytes = request.encode_to_vec();
        // Prost does not encode -0.0 where 0 is the default.
        let request = ExportMetricsServiceRequest::decode(&bytes[..]).unwrap();
        let read = Metrics::parse(&bytes).unwrap();
        let theirs: Vec<_> = all_metrics(&request).collect();
        let ours: Vec<_> = read.resources().flat_map(|r| r.scopes()).flat_map(|s| s.metrics()).collect();
        prop_assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            prop_assert_eq!(ours.name, &theirs.name);
            prop_assert_eq!(ours.unit, &theirs.unit);
            prop_assert_eq!(ours.points().count(), points(theirs));
            match &theirs.data {
                Some(Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. })) => {
                    for (mine, theirs) in ours.points().zip(data_points) {
                        prop_assert_eq!(mine.time_unix_nano, theirs.time_unix_nano);
                        prop_assert_eq!(mine.flags, theirs.flags);
                        prop_assert_eq!(mine.attributes.iter().count(), theirs.attributes.len());
                        let value = match mine.sample {
                            Sample::Number(number) => Some(number.as_f64().to_bits()),
                            _ => None,
                        };
                        #[expect(clippy::cast_precision_loss, reason = "that is what the reader does")]
                        let expected = theirs.value.map(|value| match value {
                            number_data_point::Value::AsDouble(value) => value.to_bits(),
                            number_data_point::Value::AsInt(value) => (value as f64).to_bits(),
                        });
                        prop_assert_eq!(value, expected);
                    }
                }
                Some(Data::Histogram(histogram)) => {
                    for (mine, theirs) in ours.points().zip(&histogram.data_points) {
                        let Sample::Histogram(mine) = mine.sample else { panic!("no histogram") };
                        prop_assert_eq!(mine.count, theirs.count);
                        prop_assert_eq!(mine.sum, theirs.sum);
                        prop_assert_eq!(mine.buckets().collect::<Vec<_>>(), theirs.bucket_counts.clone());
                        let bounds = theirs.explicit_bounds.iter().map(|bound| bound.to_bits()).collect::<Vec<_>>();
                        prop_assert_eq!(mine.bounds().map(f64::to_bits).collect::<Vec<_>>(), bounds);
                    }
                }
                Some(Data::Summary(summary)) => {
                    for (mine, theirs) in ours.points().zip(&summary.data_points) {
                        let Sample::Summary(mine) = mine.sample else { panic!("no summary") };
                        let (quantile, value) = mine.quantiles().next().unwrap();
                        prop_assert_eq!(quantile.to_bits(), theirs.quantile_values[0].quantile.to_bits());
                        prop_assert_eq!(value.to_bits(), theirs.quantile_values[0].value.to_bits());
                    }
                }
                _ => {}
            }
        }
    }

    #[test]
    fn log_readers_see_what_prost_sees(request in logs()) {
        let bytes = request.encode_to_vec();
        let read = Logs::parse(&bytes).unwrap();
        let ours: Vec<_> = read.resources().flat_map(|r| r.scopes()).flat_map(|s| s.records()).collect();
        let theirs: Vec<_> = all_records(&request).collect();
        prop_assert_eq!(ours.len(), theirs.len());
        for (mine, theirs) in ours.iter().zip(theirs) {
            prop_assert_eq!(mine.time_unix_nano, theirs.time_unix_nano);
            prop_assert_eq!(mine.severity_number, theirs.severity_number);
            prop_assert_eq!(mine.severity_text, &theirs.severity_text);
            prop_assert_eq!(mine.trace_id, &theirs.trace_id[..]);
            prop_assert_eq!(mine.flags, theirs.flags);
            let keys: Vec<_> = theirs.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
            prop_assert_eq!(mine.attributes.iter().map(|attribute| attribute.key).collect::<Vec<_>>(), keys);
            if let Some(Value::StringValue(text)) = theirs.body.as_ref().and_then(|body| body.value.as_ref()) {
                prop_assert_eq!(mine.body.as_str(), Some(text.as_str()));
            }
        }
    }

    #[test]
    fn pieces_hold_what_the_whole_held(request in metrics(), lines in logs(), max in 40usize..2000) {
        for one in &request.resource_metrics {
            let content = one.encode_to_vec();
            let total: usize = one.scope_metrics.iter().flat_map(|s| &s.metrics).map(points).sum();
            let cut = pieces(&content, Signal::Metrics, total, max);
            let mut seen = 0;
            for piece in &cut {
                let decoded = ResourceMetrics::decode(&piece.content[..]).unwrap();
                prop_assert_eq!(&decoded.resource, &one.resource);
                let items: usize = decoded.scope_metrics.iter().flat_map(|s| &s.metrics).map(points).sum();
                prop_assert_eq!(piece.items, items as u64);
                seen += items;
            }
            prop_assert_eq!(seen, total);
        }
        for one in &lines.resource_logs {
            let content = one.encode_to_vec();
            let records: Vec<_> = one.scope_logs.iter().flat_map(|s| &s.log_records).cloned().collect();
            let cut = pieces(&content, Signal::Logs, records.len(), max);
            let decoded: Vec<_> =
                cut.iter().map(|piece| ResourceLogs::decode(&piece.content[..]).unwrap()).collect();
            let seen: Vec<_> =
                decoded.iter().flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records).cloned().collect();
            prop_assert_eq!(format!("{seen:?}"), format!("{records:?}"));
        }
    }
}

/// Prost does not encode -0.0 where 0 is the default.
fn shown(request: &impl std::fmt::Debug) -> String {
    format!("{request:?}").replace("-0.0", "0.0")
}

fn big_request() -> (Vec<u8>, usize) {
    let point = |n: usize| NumberDataPoint {
        attributes: vec![pair("core".into(), AnyValue { value: Some(Value::StringValue(n.to_string())) })],
        time_unix_nano: 5,
        value: Some(number_data_point::Value::AsInt(1)),
        ..NumberDataPoint::default()
    };
    let count = 40_000;
    let metric = Metric {
        name: "m".into(),
        data: Some(Data::Gauge(Gauge { data_points: (0..count).map(point).collect() })),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let one = ResourceMetrics { scope_metrics, ..ResourceMetrics::default() };
    (one.encode_to_vec(), count)
}

#[test]
fn one_huge_metric_is_cut_between_its_points() {
    let (content, count) = big_request();
    let max = 512 << 10;
    assert!(content.len() > 2 * max);
    let cut = pieces(&content, Signal::Metrics, count, max);
    assert!(cut.len() > 2 && cut.iter().all(|piece| piece.content.len() <= max));
    assert_eq!(cut.iter().map(|piece| piece.items).sum::<u64>(), count as u64);
}

#[test]
fn refusals_say_why() {
    let one = NumberDataPoint { value: Some(number_data_point::Value::AsInt(1)), ..NumberDataPoint::default() };
    let sum = |aggregation_temporality| Metric {
        name: "m".into(),
        data: Some(Data::Sum(Sum { data_points: vec![one.clone(); 2], aggregation_temporality, is_monotonic: true })),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![sum(1), sum(2)], ..ScopeMetrics::default() }];
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }],
    };
    let bytes = request.encode_to_vec();
    let walk = check(&bytes, Signal::Metrics, &usual()).unwrap();
    assert_eq!((walk.items, walk.refused.total()), (2, 2));
    assert_eq!(walk.refused.iter().next().unwrap().0, otlp::Reason::NotCumulative);
}

#[test]
fn nesting_without_end_is_refused() {
    let mut value = AnyValue { value: Some(Value::StringValue("x".into())) };
    for _ in 0..60 {
        value = AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![value] })) };
    }
    let record = LogRecord { body: Some(value), ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
    let request =
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] };
    let error = check(&request.encode_to_vec(), Signal::Logs, &usual()).unwrap_err();
    assert!(error.to_string().contains("nested too deeply"), "{error}");
}

#[test]
fn what_is_malformed_is_named_with_its_place() {
    let record = LogRecord {
        severity_text: "warn".into(),
        attributes: vec![pair("key".into(), AnyValue::default())],
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs { log_records: vec![record.clone(), record], ..ScopeLogs::default() }];
    let request =
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] };
    let bytes = request.encode_to_vec();
    let broken = |text: &[u8]| {
        let at = bytes.windows(text.len()).rposition(|window| window == text).unwrap();
        let mut bytes = bytes.clone();
        bytes[at] = 0xff;
        let invalid = check(&bytes, Signal::Logs, &usual()).unwrap_err();
        describe(&bytes, Signal::Logs, invalid)
    };
    let place = "resource_logs[0].scope_logs[0].log_records[1]";
    assert_eq!(broken(b"warn"), format!("{place}.severity_text in LogRecord: a string is not UTF-8"));
    assert_eq!(broken(b"key"), format!("{place}.attributes[0].key in KeyValue: a string is not UTF-8"));
}
