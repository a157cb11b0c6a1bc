//! What the worst input becomes.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{self as otel, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource as OtelResource;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn attribute(key: String, value: String) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(any_value::Value::StringValue(value)) }), ..Default::default() }
}

fn wide(count: usize, length: usize) -> Vec<KeyValue> {
    (0..count).map(|n| attribute(format!("attribute.{n:03}"), "x".repeat(length))).collect()
}

fn histogram(attributes: Vec<KeyValue>, bounds: u32) -> otel::Metric {
    let point = otel::HistogramDataPoint {
        attributes,
        explicit_bounds: (0..bounds).map(f64::from).collect(),
        bucket_counts: vec![1; bounds as usize + 1],
        ..Default::default()
    };
    let data = otel::Histogram { data_points: vec![point], aggregation_temporality: 2 };
    otel::Metric { name: "h".to_owned(), data: Some(metric::Data::Histogram(data)), ..Default::default() }
}

/// What all series of a resource repeat, each value of so many bytes.
fn ours(length: usize) -> Vec<KeyValue> {
    let names = ["host.name", "service.name", "sightline.resource.id", "sightline.resource.kind"];
    names.iter().map(|name| attribute((*name).to_owned(), "ö".repeat(length / 2))).collect()
}

fn request(resource: Vec<KeyValue>, scope: String, metrics: Vec<otel::Metric>) -> Vec<u8> {
    let attributes = wide(scope.len().min(10), scope.len().min(600));
    let scope = InstrumentationScope { version: scope.clone(), name: scope, attributes, ..Default::default() };
    let scope = Some(scope);
    let scope_metrics = vec![otel::ScopeMetrics { scope, metrics, ..Default::default() }];
    let resource = Some(OtelResource { attributes: resource, ..Default::default() });
    let resource_metrics = vec![otel::ResourceMetrics { resource, scope_metrics, ..Default::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

struct Became {
    tally: Tally,
    /// Bytes that a reader with room for everything holds.
    held: usize,
    /// Bytes that a store gets.
    written: usize,
    /// Of these, bytes of names and values.
    labels: usize,
    largest: usize,
}

fn became(bytes: &[u8]) -> Became {
    let mut reader = Reader::new(4 << 30);
    let (mut written, mut labels, mut largest) = (0, 0, 0);
    let tally = reader
        .read("acme", bytes, 1, |sample| {
            written += sample.series.encoded_len();
            labels += sample.series.labels().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            largest = largest.max(sample.series.encoded_len());
        })
        .expect("a valid request");
    Became { tally, held: reader.usage().bytes, written, labels, largest }
}

#[test]
fn one_point_of_a_quarter_of_a_megabyte_is_passed_over() {
    let bytes = request(Vec::new(), String::new(), vec![histogram(wide(20, 4_000), 20_000)]);
    let became = became(&bytes);
    assert_eq!(became.tally.skipped.iter().collect::<Vec<_>>(), [(Skip::TooLarge, 1)]);
    assert!(became.held < 1 << 20 && became.written == 0);
}

#[test]
fn the_buckets_of_a_point_share_its_attributes() {
    let bytes = request(Vec::new(), String::new(), vec![histogram(wide(20, 110), 1_000)]);
    let became = became(&bytes);
    assert_eq!((became.tally.samples, became.tally.skipped.total()), (1_002, 0));
    assert!(became.written > 2 << 20, "each bucket is written with all attributes: {}", became.written);
    assert!(became.held < 256 << 10, "and none is held with them: {}", became.held);
}

#[test]
fn the_worst_point_that_a_gateway_takes_comes_to_no_more_labels_than_it_counted() {
    let limits = otlp::Limits::default();
    let ages = Times { ahead: Duration::MAX, age: Duration::MAX };
    let rules = otlp::Rules { limits, times: ages.window(1) };
    // As close to the limit as it goes.
    let attributes: Vec<_> = (0..20).map(|n| attribute(format!("key{n:02}"), "x".repeat(30))).collect();
    let mut metric = histogram(attributes, 1_000);
    metric.name = "n".repeat(1_000);
    metric.unit = "u".repeat(1_000);
    if let Some(metric::Data::Histogram(data)) = &mut metric.data {
        data.data_points[0].count = 1_001;
        data.data_points[0].explicit_bounds = (1..=1_000).map(|n| f64::from(n) * 1e-300).collect();
    }
    let bytes = request(ours(4_000), "s".repeat(1_000), vec![metric]);
    let walk = otlp::check(&bytes, otlp::Signal::Metrics, &rules).expect("a valid request");
    assert_eq!((walk.items, walk.refused.total()), (1, 0));
    let became = became(&bytes);
    assert_eq!((became.tally.samples, became.tally.skipped.total()), (1_002, 0));
    // Beside the point's series there is one target_info.
    assert!(became.labels <= limits.series_bytes + (32 << 10), "{} bytes of labels", became.labels);
}

#[test]
fn many_tiny_points_are_small_series() {
    let count = 20_000;
    let point = |n: usize| otel::NumberDataPoint {
        attributes: vec![attribute(format!("{n}"), "x".to_owned())],
        value: Some(number_data_point::Value::AsInt(1)),
        ..Default::default()
    };
    let data = Some(metric::Data::Gauge(otel::Gauge { data_points: (0..count).map(point).collect() }));
    let metric = otel::Metric { name: "g".to_owned(), data, ..Default::default() };
    let became = became(&request(ours(4_000), "s".repeat(1_000), vec![metric]));
    assert_eq!(became.tally.skipped.total(), 0);
    assert!(became.held < count * 2_000, "{} bytes for {count} points", became.held);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_held_is_a_few_times_what_came_in(
        attributes in 0_usize..40,
        length in prop::sample::select(vec![0_usize, 1, 100, 4_000, 40_000]),
        bounds in prop::sample::select(vec![0_u32, 1, 50, 1_000, 5_000]),
        metrics in 1_usize..20,
        resource in prop::sample::select(vec![0_usize, 10, 60]),
        scope in prop::sample::select(vec![0_usize, 30, 60_000]),
        numbers in 0_usize..200,
    ) {
        let mut all: Vec<_> = (0..metrics).map(|n| {
            let mut metric = histogram(wide(attributes, length), bounds);
            metric.name = format!("h{n}");
            metric
        }).collect();
        let point = |n: usize| otel::NumberDataPoint {
            attributes: wide(n % 5, n),
            value: Some(number_data_point::Value::AsInt(1)),
            ..Default::default()
        };
        let data_points = (0..numbers).map(point).collect();
        let data = Some(metric::Data::Gauge(otel::Gauge { data_points }));
        all.push(otel::Metric { name: "g".to_owned(), data, ..Default::default() });
        let bytes = request([wide(resource, length / 10), ours(length)].concat(), "s".repeat(scope), all);
        let became = became(&bytes);
        prop_assert!(became.largest <= 64 << 10, "a series of {} bytes", became.largest);
        let points = usize::try_from(became.tally.points).expect("small");
        // A bound of 8 bytes and its count become a series of less than 300; what is ours is in each point's labels.
        prop_assert!(
            became.held <= 30 * bytes.len() + points * 2_000 + (1 << 20),
            "{} bytes came to {}", bytes.len(), became.held
        );
        prop_assert!(became.written <= points * (4 << 20), "{} bytes are written", became.written);
    }
}
