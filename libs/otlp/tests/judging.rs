//! What a gateway refuses of a request, item by item, and what stays.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Summary,
    SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp::{Limits, Reason, Rules, Signal, Walk, append_stamped, check};
use prost::Message as _;

const NOW: u64 = 1_790_000_000_000_000_000;
const DAY: u64 = 86_400 * 1_000_000_000;

fn rules() -> Rules {
    let times =
        model::Times { ahead: std::time::Duration::from_secs(600), age: std::time::Duration::from_secs(30 * 86_400) };
    Rules { limits: Limits::default(), times: times.window(NOW) }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(length: usize) -> Value {
    Value::StringValue("x".repeat(length))
}

fn number(value: f64) -> NumberDataPoint {
    NumberDataPoint { time_unix_nano: NOW, value: Some(Number::AsDouble(value)), ..NumberDataPoint::default() }
}

fn gauge(points: Vec<NumberDataPoint>) -> Metric {
    Metric { name: "m".into(), data: Some(Data::Gauge(Gauge { data_points: points })), ..Metric::default() }
}

fn histogram(bounds: &[f64], counts: &[u64], count: u64, sum: f64) -> Metric {
    let point = HistogramDataPoint {
        time_unix_nano: NOW,
        count,
        sum: Some(sum),
        explicit_bounds: bounds.to_vec(),
        bucket_counts: counts.to_vec(),
        ..HistogramDataPoint::default()
    };
    let data = Histogram { data_points: vec![point], aggregation_temporality: 2 };
    Metric { name: "m".into(), data: Some(Data::Histogram(data)), ..Metric::default() }
}

fn summary(quantiles: usize, sum: f64) -> Metric {
    let value = ValueAtQuantile { quantile: 0.5, value: f64::NAN };
    let point = SummaryDataPoint { sum, quantile_values: vec![value; quantiles], ..SummaryDataPoint::default() };
    Metric { name: "m".into(), data: Some(Data::Summary(Summary { data_points: vec![point] })), ..Metric::default() }
}

fn request(scopes: Vec<ScopeMetrics>) -> ResourceMetrics {
    ResourceMetrics { scope_metrics: scopes, ..ResourceMetrics::default() }
}

fn of(metrics: Vec<Metric>) -> ScopeMetrics {
    ScopeMetrics { metrics, ..ScopeMetrics::default() }
}

/// Items that stay, and why others do not; what is handed on has just those that stay.
fn judged(resources: Vec<ResourceMetrics>) -> (u64, Vec<(Reason, u64)>) {
    let bytes = ExportMetricsServiceRequest { resource_metrics: resources }.encode_to_vec();
    let walk: Walk<'_> = check(&bytes, Signal::Metrics, &rules()).unwrap();
    let mut out = Vec::new();
    for resource in walk.resources.iter().filter(|resource| resource.items > 0) {
        append_stamped(&mut out, &resource.kept(&rules()), &otlp::Stamp::new());
    }
    let again = check(&out, Signal::Metrics, &rules()).unwrap();
    assert_eq!((again.items, again.refused.total()), (walk.items, 0));
    (walk.items, walk.refused.iter().collect())
}

fn verdict(metric: Metric) -> Result<(), Reason> {
    // A good neighbour stays in any case.
    match judged(vec![request(vec![of(vec![gauge(vec![number(1.0)]), metric])])]) {
        (2, refused) if refused.is_empty() => Ok(()),
        (1, refused) => Err(refused[0].0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn points_that_say_nothing_are_refused() {
    assert_eq!(verdict(gauge(vec![number(f64::INFINITY)])), Ok(()));
    assert_eq!(verdict(gauge(vec![number(f64::NAN)])), Err(Reason::NotANumber));
    assert_eq!(verdict(gauge(vec![NumberDataPoint { value: None, ..number(0.0) }])), Err(Reason::NoValue));
    // A kind of data that is newer than we are, as good as none.
    assert_eq!(verdict(Metric { data: None, ..gauge(Vec::new()) }), Err(Reason::NoValue));
    // What is marked so ends its series.
    assert_eq!(verdict(gauge(vec![NumberDataPoint { value: None, flags: 1, ..number(0.0) }])), Ok(()));
    assert_eq!(verdict(gauge(vec![NumberDataPoint { flags: 1, ..number(f64::NAN) }])), Ok(()));
    assert_eq!(verdict(summary(3, 1.0)), Ok(()));
    assert_eq!(verdict(summary(3, f64::NAN)), Err(Reason::NotANumber));
}

#[test]
fn times_that_cannot_be_are_refused() {
    let at = |time_unix_nano| verdict(gauge(vec![NumberDataPoint { time_unix_nano, ..number(1.0) }]));
    assert_eq!(at(0), Ok(()));
    assert_eq!(at(NOW - DAY), Ok(()));
    assert_eq!(at(NOW + 3 * DAY), Err(Reason::TimeAhead));
    assert_eq!(at(u64::MAX), Err(Reason::TimeAhead));
    assert_eq!(at(NOW / 1_000_000), Err(Reason::TimeTooOld));
}

#[test]
fn histograms_must_hold_together() {
    assert_eq!(verdict(histogram(&[1.0, 5.0], &[1, 2, 4], 7, 21.0)), Ok(()));
    assert_eq!(verdict(histogram(&[], &[], 7, 21.0)), Ok(()));
    assert_eq!(verdict(histogram(&[], &[7], 7, 21.0)), Ok(()));
    assert_eq!(verdict(histogram(&[1.0, f64::INFINITY], &[3, 4, 0], 7, 21.0)), Ok(()));
    for (bounds, counts, count) in [
        (&[5.0, 1.0][..], &[1, 2, 4][..], 7),
        (&[1.0, 1.0], &[1, 2, 4], 7),
        (&[f64::NAN], &[1, 2], 3),
        (&[1.0], &[1], 1),
        (&[1.0], &[], 1),
        (&[1.0], &[1, 2, 3], 6),
        (&[1.0], &[1, 2], 4),
        (&[1.0], &[u64::MAX, 2], 1),
    ] {
        let verdict = verdict(histogram(bounds, counts, count, 1.0));
        assert_eq!(verdict, Err(Reason::BrokenHistogram), "{bounds:?} {counts:?} {count}");
    }
    assert_eq!(verdict(histogram(&[1.0], &[1, 2], 3, f64::NAN)), Err(Reason::NotANumber));
}

#[test]
fn what_becomes_too_many_series_is_refused() {
    let bounds: Vec<f64> = (0..1001u32).map(f64::from).collect();
    let broad = |buckets: usize| histogram(&bounds[..buckets], &vec![1; buckets + 1], buckets as u64 + 1, 1.0);
    assert_eq!(verdict(broad(1000)), Ok(()));
    assert_eq!(verdict(broad(1001)), Err(Reason::TooManyBuckets));
    assert_eq!(verdict(summary(1001, 1.0)), Err(Reason::TooManyBuckets));
    let labelled = |buckets: usize, bytes: usize| {
        let mut metric = broad(buckets);
        if let Some(Data::Histogram(data)) = &mut metric.data {
            data.data_points[0].attributes = vec![attribute("k", text(bytes))];
        }
        metric
    };
    assert_eq!(verdict(labelled(100, 4_000)), Ok(()));
    assert_eq!(verdict(labelled(1000, 4_000)), Err(Reason::TooManyLabelBytes));
}

#[test]
fn what_a_label_cannot_be_is_refused() {
    let with = |attributes| verdict(gauge(vec![NumberDataPoint { attributes, ..number(1.0) }]));
    let many = |count: usize, bytes: usize| (0..count).map(|n| attribute(&n.to_string(), text(bytes))).collect();
    assert_eq!(with(many(20, 10)), Ok(()));
    assert_eq!(with(many(21, 10)), Err(Reason::TooManyAttributes));
    assert_eq!(with(many(1, 4096)), Ok(()));
    assert_eq!(with(many(1, 4097)), Err(Reason::AttributeTooLong));
    assert_eq!(with(vec![attribute(&"k".repeat(257), text(1))]), Err(Reason::AttributeTooLong));
    assert_eq!(with(many(8, 4090)), Ok(()));
    assert_eq!(with(many(9, 4090)), Err(Reason::TooManyLabelBytes));
    // Short on the wire, long as text: control characters are six bytes each in JSON.
    let value = AnyValue { value: Some(Value::StringValue("\u{1}".repeat(1000))) };
    let list = Value::ArrayValue(ArrayValue { values: vec![value] });
    assert_eq!(with(vec![attribute("k", list)]), Err(Reason::AttributeTooLong));
    assert_eq!(with(vec![attribute("k", Value::DoubleValue(1e300))]), Ok(()));
}

#[test]
fn names_are_labels_too() {
    let named = |length: usize| Metric { name: "n".repeat(length), ..gauge(vec![number(1.0)]) };
    assert_eq!(verdict(named(1024)), Ok(()));
    assert_eq!(verdict(named(1025)), Err(Reason::NameTooLong));
    assert_eq!(verdict(named(0)), Err(Reason::Unnamed));
    let long_unit = Metric { unit: "u".repeat(1025), ..gauge(vec![number(1.0)]) };
    assert_eq!(verdict(long_unit), Err(Reason::NameTooLong));
    assert_eq!(verdict(Metric { description: "d".repeat(70_000), ..gauge(vec![number(1.0)]) }), Err(Reason::TooLarge));
    let scope = |name: usize| {
        let scope = InstrumentationScope { name: "s".repeat(name), ..InstrumentationScope::default() };
        ScopeMetrics { scope: Some(scope), ..of(vec![gauge(vec![number(1.0), number(2.0)])]) }
    };
    let judged = judged(vec![request(vec![scope(5), scope(2_000), scope(70_000)])]);
    assert_eq!(judged, (2, vec![(Reason::NameTooLong, 2), (Reason::TooLarge, 2)]));
}

#[test]
fn a_scope_of_logs_is_named_no_longer_than_one_of_metrics() {
    // A log's scope is in each of its lines, of which an envelope has twenty thousand.
    for (name, version, items) in [(1_024, 1_024, 1), (1_025, 0, 0), (0, 1_025, 0)] {
        let scope = InstrumentationScope { name: "x".repeat(name), version: "x".repeat(version), ..Default::default() };
        let log_records = vec![LogRecord { time_unix_nano: NOW, ..LogRecord::default() }];
        let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
        let walk = check(&bytes, Signal::Logs, &rules()).unwrap();
        assert_eq!((walk.items, walk.refused.total()), (items, 1 - items));
        assert!(walk.refused.iter().all(|(reason, _)| reason == Reason::NameTooLong));
    }
}

#[test]
fn one_resource_that_is_too_large_does_not_cost_the_others_their_place() {
    let resource = |bytes: usize| ResourceMetrics {
        resource: Some(Resource { attributes: vec![attribute("k", text(bytes))], ..Resource::default() }),
        ..request(vec![of(vec![gauge(vec![number(1.0), number(f64::NAN)])])])
    };
    let judged = judged(vec![resource(10), resource(70_000), resource(20)]);
    assert_eq!(judged, (2, vec![(Reason::TooLarge, 2), (Reason::NotANumber, 2)]));
}

#[test]
fn buckets_that_are_not_packed_are_judged_alike() {
    let fixed = |number: u8, bits: u64| [&[number << 3 | 1][..], &bits.to_le_bytes()].concat();
    let field =
        |number: u8, content: &[u8]| [&[number << 3 | 2, u8::try_from(content.len()).unwrap()][..], content].concat();
    let request = |counts: [u64; 2]| {
        let counts = counts.map(|count| fixed(6, count)).concat();
        let point = [fixed(4, 3), counts, fixed(7, 1f64.to_bits())].concat();
        let histogram = [field(1, &point), vec![0x10, 2]].concat();
        let metric = [field(1, b"m"), field(9, &histogram)].concat();
        field(1, &field(2, &field(2, &metric)))
    };
    let refused = |counts| {
        let bytes = request(counts);
        check(&bytes, Signal::Metrics, &rules()).unwrap().refused.iter().collect::<Vec<_>>()
    };
    assert_eq!(refused([1, 2]), []);
    assert_eq!(refused([1, 3]), [(Reason::BrokenHistogram, 1)]);
}
