//! Requests as clients build them, into samples.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{self as otel, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource as OtelResource;
use prost::Message as _;

use super::*;
use crate::Type;

const SECOND: u64 = 1_000_000_000;
const RECEIVED: u64 = 99 * SECOND;

fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let pair = |(key, value): &(&str, &str)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue((*value).to_owned())) }),
        ..Default::default()
    };
    pairs.iter().map(pair).collect()
}

fn number(value: f64, at: u64, pairs: &[(&str, &str)]) -> otel::NumberDataPoint {
    otel::NumberDataPoint {
        attributes: attributes(pairs),
        time_unix_nano: at * SECOND,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

fn gauge(name: &str, unit: &str, points: Vec<otel::NumberDataPoint>) -> otel::Metric {
    of(name, unit, metric::Data::Gauge(otel::Gauge { data_points: points }))
}

fn sum(name: &str, monotonic: bool, temporality: i32, points: Vec<otel::NumberDataPoint>) -> otel::Metric {
    let data = otel::Sum { data_points: points, aggregation_temporality: temporality, is_monotonic: monotonic };
    of(name, "", metric::Data::Sum(data))
}

fn of(name: &str, unit: &str, data: metric::Data) -> otel::Metric {
    otel::Metric { name: name.to_owned(), unit: unit.to_owned(), data: Some(data), ..Default::default() }
}

fn request(resource: &[(&str, &str)], scope: &str, metrics: Vec<otel::Metric>) -> Vec<u8> {
    let scope = InstrumentationScope { name: scope.to_owned(), ..Default::default() };
    let scope_metrics = vec![otel::ScopeMetrics { scope: Some(scope), metrics, ..Default::default() }];
    let resource = Some(OtelResource { attributes: attributes(resource), ..Default::default() });
    let resource_metrics = vec![otel::ResourceMetrics { resource, scope_metrics, ..Default::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

const HOST: [(&str, &str); 5] = [
    ("agent.id", "a1"),
    ("host.name", "web"),
    ("os.type", "linux"),
    ("sightline.resource.id", "host-x"),
    ("sightline.resource.kind", "host"),
];

/// One line a sample, as Prometheus's exposition format writes it.
fn lines(reader: &mut Reader, bytes: &[u8]) -> (Vec<String>, Tally) {
    let mut lines = Vec::new();
    let tally = reader
        .read("acme", bytes, RECEIVED, |sample| {
            let labels = sample.series.labels().filter(|(name, _)| *name != "__name__");
            let labels = labels.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
            let value = if sample.is_stale() { "stale".to_owned() } else { sample.value.to_string() };
            lines.push(format!("{}{{{labels}}} {value} @{}", sample.series.name(), sample.time_ms));
        })
        .expect("a valid request");
    (lines, tally)
}

#[track_caller]
fn check(bytes: &[u8], expected: &[&str]) {
    assert_eq!(lines(&mut Reader::new(64 << 10), bytes).0, expected);
}

#[test]
fn a_host_metric_is_the_same_series_from_both_generations_of_agents() {
    let point = || vec![number(7.0, 5, &[("interface", "eth0")])];
    let newer = request(&HOST, "System.Network", vec![gauge("bytes_sent", "bytes", point())]);
    let older = request(&HOST, "System.Network", vec![sum("bytes_sent", true, 2, point())]);
    let expected = [
        "system_network_bytes_sent{host_name=web,interface=eth0,kind=host,resource_id=host-x,tenant=acme} 7 @5000",
        "target_info{agent_id=a1,host_name=web,kind=host,os_type=linux,resource_id=host-x,tenant=acme} 1 @5000",
    ];
    for bytes in [newer, older] {
        check(&bytes, &expected);
        let mut kinds = Vec::new();
        Reader::new(64 << 10).read("acme", &bytes, 0, |sample| kinds.push(sample.series.kind)).expect("valid");
        assert_eq!(kinds[0], Type::Counter);
    }
}

#[test]
fn without_an_agent_id_the_scope_is_not_part_of_the_name() {
    let bytes =
        request(&[("service.name", "shop")], "System.Memory", vec![gauge("total", "By", vec![number(1.0, 5, &[])])]);
    check(&bytes, &["total_bytes{otel_scope_name=System.Memory,service_name=shop,tenant=acme} 1 @5000"]);
}

#[test]
fn sums_end_in_total_when_they_only_rise() {
    let point = || vec![number(3.0, 5, &[("code", "200")])];
    let metrics = vec![sum("http.requests", true, 2, point()), sum("queue.size", false, 2, point())];
    let expected = ["http_requests_total{code=200,tenant=acme} 3 @5000", "queue_size{code=200,tenant=acme} 3 @5000"];
    check(&request(&[], "", metrics), &expected);
}

#[test]
fn a_histogram_is_cumulative_buckets_sum_and_count() {
    let point = otel::HistogramDataPoint {
        time_unix_nano: 5 * SECOND,
        count: 6,
        sum: Some(2.5),
        explicit_bounds: vec![0.1, 1.0],
        bucket_counts: vec![1, 2, 3],
        attributes: attributes(&[("route", "/")]),
        ..Default::default()
    };
    let data = otel::Histogram { data_points: vec![point], aggregation_temporality: 2 };
    let bytes = request(&[], "", vec![of("http.duration", "s", metric::Data::Histogram(data))]);
    let expected = [
        "http_duration_seconds_bucket{le=0.1,route=/,tenant=acme} 1 @5000",
        "http_duration_seconds_bucket{le=1,route=/,tenant=acme} 3 @5000",
        "http_duration_seconds_bucket{le=+Inf,route=/,tenant=acme} 6 @5000",
        "http_duration_seconds_sum{route=/,tenant=acme} 2.5 @5000",
        "http_duration_seconds_count{route=/,tenant=acme} 6 @5000",
    ];
    check(&bytes, &expected);
}

#[test]
fn a_summary_is_quantiles_sum_and_count() {
    let quantile = |quantile, value| otel::summary_data_point::ValueAtQuantile { quantile, value };
    let point = otel::SummaryDataPoint {
        time_unix_nano: 5 * SECOND,
        count: 4,
        sum: 8.0,
        quantile_values: vec![quantile(0.5, 1.5), quantile(0.99, 4.0)],
        ..Default::default()
    };
    let bytes =
        request(&[], "", vec![of("gc", "s", metric::Data::Summary(otel::Summary { data_points: vec![point] }))]);
    let expected = [
        "gc_seconds{quantile=0.5,tenant=acme} 1.5 @5000",
        "gc_seconds{quantile=0.99,tenant=acme} 4 @5000",
        "gc_seconds_sum{tenant=acme} 8 @5000",
        "gc_seconds_count{tenant=acme} 4 @5000",
    ];
    check(&bytes, &expected);
}

#[test]
fn no_recorded_value_is_the_stale_marker_and_no_time_is_the_time_of_arrival() {
    let gone = otel::NumberDataPoint { time_unix_nano: 5 * SECOND, flags: 1, ..Default::default() };
    let bytes = request(&[], "", vec![gauge("up", "", vec![gone, number(1.0, 0, &[])])]);
    check(&bytes, &["up{tenant=acme} stale @5000", "up{tenant=acme} 1 @99000"]);
}

#[test]
fn what_has_no_series_is_counted() {
    let empty = otel::NumberDataPoint { time_unix_nano: SECOND, ..Default::default() };
    let metrics = vec![
        sum("delta", true, 1, vec![number(1.0, 5, &[])]),
        gauge("empty", "", vec![empty]),
        gauge("", "s", vec![number(1.0, 5, &[])]),
        gauge("long", &"x".repeat(2_000), vec![number(1.0, 5, &[])]),
    ];
    let (lines, tally) = lines(&mut Reader::new(64 << 10), &request(&HOST, "", metrics));
    assert_eq!(lines, Vec::<String>::new());
    let skipped: Vec<_> = tally.skipped.iter().collect();
    let expected = [Skip::Unnamed, Skip::NotCumulative, Skip::NoValue, Skip::TooLarge].map(|skip| (skip, 1));
    assert_eq!((tally.points, skipped), (4, expected.to_vec()));
}

#[test]
fn a_resource_has_one_target_info_at_its_latest_time() {
    let mut bytes = request(&HOST, "System.Host", vec![gauge("procs", "count", vec![number(1.0, 7, &[])])]);
    bytes.extend(request(&HOST, "System.Host", vec![gauge("uptime", "seconds", vec![number(1.0, 6, &[])])]));
    let (lines, tally) = lines(&mut Reader::new(64 << 10), &bytes);
    let infos: Vec<_> = lines.iter().filter(|line| line.starts_with("target_info")).collect();
    assert_eq!(infos.len(), 1);
    assert!(infos[0].ends_with("1 @7000"), "{}", infos[0]);
    assert_eq!(tally.samples, 2);
}

#[test]
fn a_remembered_series_is_the_same_one_and_others_are_not() {
    let mut reader = Reader::new(64 << 10);
    let bytes = |zone: &str, kind: &str| {
        let resource = [("sightline.resource.id", "r"), ("sightline.resource.kind", kind)];
        request(&resource, "", vec![gauge("up", "", vec![number(1.0, 5, &[("zone", zone)])])])
    };
    let mut read = |tenant: &str, bytes: &[u8]| {
        let mut series = Vec::new();
        reader.read(tenant, bytes, 0, |sample| series.push(Arc::clone(sample.series))).expect("valid");
        series.remove(0)
    };
    let first = read("a", &bytes("eu", "host"));
    assert!(Arc::ptr_eq(&first, &read("a", &bytes("eu", "host"))));
    for (tenant, zone, kind) in [("b", "eu", "host"), ("a", "us", "host"), ("a", "eu", "app")] {
        let other = read(tenant, &bytes(zone, kind));
        assert!(!first.has_labels_of(&other));
        assert_ne!(first.hash, other.hash);
        assert_eq!((other.label("tenant"), other.label("zone"), other.label("kind")), (tenant, zone, kind));
    }
}

#[test]
fn nonsense_gives_nothing_out() {
    let mut bytes = request(&HOST, "", vec![gauge("up", "", vec![number(1.0, 5, &[])])]);
    bytes.extend([0x0a, 0x7f]);
    let mut given = 0;
    assert!(Reader::new(64 << 10).read("acme", &bytes, 0, |_| given += 1).is_err());
    assert_eq!(given, 0);
}

fn histogram(count: u64, bounds: &[f64], buckets: &[u64]) -> otel::HistogramDataPoint {
    otel::HistogramDataPoint {
        time_unix_nano: 5 * SECOND,
        count,
        explicit_bounds: bounds.to_vec(),
        bucket_counts: buckets.to_vec(),
        ..Default::default()
    }
}

fn histograms(points: Vec<otel::HistogramDataPoint>) -> Vec<u8> {
    let data = otel::Histogram { data_points: points, aggregation_temporality: 2 };
    request(&[], "", vec![of("h", "", metric::Data::Histogram(data))])
}

fn skipped(bytes: &[u8]) -> Vec<(Skip, u64)> {
    lines(&mut Reader::new(64 << 10), bytes).1.skipped.iter().collect()
}

#[test]
fn two_scopes_of_a_resource_are_two_series() {
    let metrics = || vec![sum("calls", true, 2, vec![number(1.0, 5, &[])])];
    let mut bytes = request(&[], "lib-a", metrics());
    bytes.extend(request(&[], "lib-b", metrics()));
    let scope = InstrumentationScope {
        name: "lib-b".to_owned(),
        version: "2.0".to_owned(),
        attributes: attributes(&[("z", "1"), ("a", "2")]),
        ..Default::default()
    };
    let scope_metrics = vec![otel::ScopeMetrics { scope: Some(scope), metrics: metrics(), ..Default::default() }];
    let resource_metrics = vec![otel::ResourceMetrics { scope_metrics, ..Default::default() }];
    bytes.extend(ExportMetricsServiceRequest { resource_metrics }.encode_to_vec());
    let expected = [
        "calls_total{otel_scope_name=lib-a,tenant=acme} 1 @5000",
        "calls_total{otel_scope_name=lib-b,tenant=acme} 1 @5000",
        "calls_total{otel_scope_attributes={\"a\":\"2\",\"z\":\"1\"},otel_scope_name=lib-b,otel_scope_version=2.0,tenant=acme} 1 \
         @5000",
    ];
    check(&bytes, &expected);
}

#[test]
fn names_that_are_stored_alike_are_not_one_series() {
    let point = |value| vec![number(value, 5, &[])];
    let metrics = vec![gauge("x.y", "", point(1.0)), gauge("x_y", "", point(2.0))];
    let bytes = request(&[], "", metrics);
    let mut reader = Reader::new(64 << 10);
    for _ in 0..3 {
        let (lines, tally) = lines(&mut reader, &bytes);
        assert_eq!(lines, ["x_y{tenant=acme} 1 @5000"]);
        assert_eq!(tally.skipped.iter().collect::<Vec<_>>(), [(Skip::NameTaken, 1)]);
    }
    let points = vec![number(1.0, 5, &[("a.b", "v")]), number(2.0, 5, &[("a_b", "v")])];
    assert_eq!(skipped(&request(&[], "", vec![gauge("z", "", points)])), [(Skip::NameTaken, 1)]);
    let metrics = vec![gauge("温度", "", point(1.0)), gauge("湿度", "", point(2.0)), gauge("%", "", point(3.0))];
    let expected = ["u6e29_u5ea6{tenant=acme} 1 @5000", "u6e7f_u5ea6{tenant=acme} 2 @5000", "u25{tenant=acme} 3 @5000"];
    check(&request(&[], "", metrics), &expected);
}

/// Points of instruments and attributes that are stored alike, in either order of attributes, of two resources.
fn alike(which: &[usize]) -> Vec<u8> {
    let points = which.iter().enumerate().flat_map(|(n, which)| {
        let name = ["x.y", "x_y", "x-y"][which % 3];
        let mut pairs = [("b", "1"), (["a.b", "a_b"][which / 3 % 2], "2")];
        if which / 6 % 2 == 1 {
            pairs.reverse();
        }
        let value = f64::from(u32::try_from(10 * which + n).expect("small"));
        let host: &[_] = if *which < 12 { &[] } else { &[("host.name", "h")] };
        request(host, "", vec![gauge(name, "", vec![number(value, 5, &pairs)])])
    });
    points.collect()
}

proptest::proptest! {
    #[test]
    fn an_envelope_is_read_alike_whatever_was_read_before(
        envelopes in proptest::collection::vec(proptest::collection::vec(0_usize..24, 0..10), 0..12),
        room in proptest::sample::select(vec![0_usize, 1_500, 64 << 10]),
    ) {
        let mut reader = Reader::new(room);
        for which in envelopes {
            let bytes = alike(&which);
            let (fresh, _) = lines(&mut Reader::new(64 << 10), &bytes);
            proptest::prop_assert_eq!(lines(&mut reader, &bytes).0, fresh, "{:?}", which);
        }
    }
}

#[test]
fn replicas_that_each_see_half_of_it_decide_alike() {
    let (mut one, mut other) = (Reader::new(64 << 10), Reader::new(64 << 10));
    lines(&mut one, &alike(&[0]));
    lines(&mut other, &alike(&[1]));
    let both = alike(&[1, 0]);
    let (lines_of_one, tally) = lines(&mut one, &both);
    assert_eq!(lines_of_one, ["x_y{a_b=2,b=1,tenant=acme} 10 @5000"]);
    assert_eq!(tally.skipped.iter().collect::<Vec<_>>(), [(Skip::NameTaken, 1)]);
    assert_eq!(lines(&mut other, &both).0, lines_of_one);
}

#[test]
fn what_contests_a_series_of_one_resource_takes_none_from_another() {
    for warm in [&[][..], &[0, 12], &[1, 13], &[0, 13]] {
        let mut reader = Reader::new(64 << 10);
        lines(&mut reader, &alike(warm));
        let expected = ["x_y{a_b=2,b=1,tenant=acme} 0 @5000", "x_y{a_b=2,b=1,host_name=h,tenant=acme} 132 @5000"];
        assert_eq!(lines(&mut reader, &alike(&[0, 1, 13])).0, expected, "after {warm:?}");
    }
}

#[test]
fn attributes_in_another_order_are_the_same_series() {
    let points = vec![number(1.0, 5, &[("a", "1"), ("b", "2")]), number(2.0, 6, &[("b", "2"), ("a", "1")])];
    let expected = ["up{a=1,b=2,tenant=acme} 1 @5000", "up{a=1,b=2,tenant=acme} 2 @6000"];
    check(&request(&[], "", vec![gauge("up", "", points)]), &expected);
}

#[test]
fn of_a_key_that_repeats_the_last_counts() {
    let bytes = request(
        &[("service.name", "old"), ("service.name", "new")],
        "",
        vec![gauge("up", "", vec![number(1.0, 5, &[("k", "z"), ("k", "a\0")])])],
    );
    check(&bytes, &["up{k=a\u{fffd},service_name=new,tenant=acme} 1 @5000"]);
}

#[test]
fn broken_histograms_are_passed_over_and_odd_ones_made_coherent() {
    let broken = [
        histogram(7, &[5.0, 1.0], &[2, 3, 2]),
        histogram(7, &[1.0, 1.0], &[2, 3, 2]),
        histogram(7, &[1.0, f64::NAN], &[2, 3, 2]),
        histogram(7, &[f64::NAN], &[2, 3]),
        histogram(7, &[1.0, 2.0], &[2, 3]),
        histogram(7, &[1.0, 2.0], &[]),
    ];
    for point in broken {
        assert_eq!(skipped(&histograms(vec![point.clone()])), [(Skip::BrokenHistogram, 1)], "{point:?}");
    }
    check(
        &histograms(vec![histogram(9, &[1.0], &[2, 3]), histogram(4, &[], &[])]),
        &[
            "h_bucket{le=1,tenant=acme} 2 @5000",
            "h_bucket{le=+Inf,tenant=acme} 5 @5000",
            "h_count{tenant=acme} 5 @5000",
            "h_bucket{le=+Inf,tenant=acme} 4 @5000",
            "h_count{tenant=acme} 4 @5000",
        ],
    );
}

#[test]
fn what_is_not_a_number_is_not_given_out() {
    let stale = number(f64::from_bits(0x7ff0_0000_0000_0002), 5, &[]);
    let metrics = vec![gauge("up", "", vec![number(f64::NAN, 5, &[]), number(f64::INFINITY, 6, &[]), stale])];
    check(&request(&[], "", metrics.clone()), &["up{tenant=acme} inf @6000", "up{tenant=acme} stale @5000"]);
    assert_eq!(skipped(&request(&[], "", metrics)), [(Skip::NotANumber, 1)]);
    let mut point = histogram(1, &[], &[]);
    point.sum = Some(f64::NAN);
    let (lines, tally) = lines(&mut Reader::new(64 << 10), &histograms(vec![point]));
    assert_eq!((lines.len(), tally.not_numbers, tally.skipped.total()), (2, 1, 0));
}

#[test]
fn times_that_are_not_believed_are_passed_over() {
    let believed = Times { ahead: Duration::from_secs(10), age: Duration::from_secs(90) };
    // Received at 99 s, in an envelope that was gathered for a while.
    let points = [0, 8, 9, 99, 119, 120].map(|at| number(1.0, at, &[])).to_vec();
    let bytes = request(&[], "", vec![gauge("up", "", points)]);
    let (lines, tally) = lines(&mut Reader::new(64 << 10).believing(believed), &bytes);
    let times: Vec<&str> = lines.iter().map(|line| line.rsplit('@').next().expect("a time")).collect();
    assert_eq!(times, ["99000", "9000", "99000", "119000"]);
    let skipped: Vec<_> = tally.skipped.iter().collect();
    assert_eq!(skipped, [(Skip::Time(Disbelieved::Ahead), 1), (Skip::Time(Disbelieved::TooOld), 1)]);
    let mut beyond = number(1.0, 0, &[]);
    beyond.time_unix_nano = u64::MAX;
    assert_eq!(
        super::tests::skipped(&request(&[], "", vec![gauge("up", "", vec![beyond])])),
        [(Skip::Time(Disbelieved::Beyond), 1)]
    );
}

#[test]
fn a_resource_that_is_forgotten_finds_its_series_again() {
    let mut reader = Reader::new(1 << 20);
    // No room for any resource.
    reader.resources = Cache::new(0);
    let bytes = request(&HOST, "", vec![gauge("up", "", vec![number(1.0, 5, &[])])]);
    for _ in 0..3 {
        lines(&mut reader, &bytes);
    }
    let (points, resources) = (reader.points.usage(), reader.resources.usage());
    assert_eq!((points.hits, points.misses, resources.hits, resources.unkept), (2, 1, 0, 3));
}

#[test]
fn series_beyond_the_room_cost_only_themselves() {
    let series = |from: usize, to: usize| {
        let names: Vec<String> = (from..to).map(|n| format!("series-{n}")).collect();
        let points = names.iter().map(|name| number(1.0, 5, &[("name", name)])).collect();
        request(&HOST, "", vec![gauge("up", "", points)])
    };
    let bytes = series(0, 1_500);
    let mut probe = Reader::new(64 << 20);
    lines(&mut probe, &bytes);
    let room = probe.points.usage().bytes * 2 / 3;
    let mut reader = Reader::new(room + room / (FOR_RESOURCES - 1));
    for _ in 0..5 {
        lines(&mut reader, &bytes);
    }
    let usage = reader.points.usage();
    assert!(usage.bytes <= room && usage.hits >= 4 * 990, "{usage:?}");
}
