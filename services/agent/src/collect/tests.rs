//! Holds a real collection of this host against the table of names, units and attributes that GoSight's agents use.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint};

use super::disk::Capacity;
use super::*;

fn collection() -> Collection {
    let folder = tempfile::tempdir().unwrap();
    let identity = Arc::new(Identity::for_test(folder.path()));
    Collector::new(identity, HostRoot::new(std::path::Path::new("/"))).unwrap().collect()
}

fn metrics(collection: &Collection) -> BTreeMap<String, &Metric> {
    let mut metrics = BTreeMap::new();
    for scope in &collection.request.resource_metrics[0].scope_metrics {
        for metric in &scope.metrics {
            let name = format!("{}.{}", scope.scope.as_ref().unwrap().name, metric.name);
            assert!(metrics.insert(name.clone(), metric).is_none(), "{name} appears twice");
        }
    }
    metrics
}

fn points(metric: &Metric) -> (bool, &[NumberDataPoint]) {
    match metric.data.as_ref().unwrap() {
        Data::Gauge(gauge) => (false, &gauge.data_points),
        Data::Sum(sum) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
            (true, &sum.data_points)
        }
        other => panic!("unexpected {other:?}"),
    }
}

fn value(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(Value::AsDouble(value)) => value,
        ref other => panic!("unexpected {other:?}"),
    }
}

fn keys(point: &NumberDataPoint) -> BTreeSet<&str> {
    point.attributes.iter().map(|attribute| attribute.key.as_str()).collect()
}

#[test]
fn every_metric_of_this_host_has_its_unit_type_and_attributes() {
    let collection = collection();
    assert!(collection.failures.is_empty(), "{:?}", collection.failures);
    let metrics = metrics(&collection);
    let expected = [
        ("System.CPU", "usage_percent", "percent", false),
        ("System.CPU", "load_avg_1 load_avg_5 load_avg_15", "load", false),
        ("System.CPU", "count_logical count_physical", "count", false),
        (
            "System.CPU",
            "time_user time_system time_idle time_nice time_iowait time_irq time_softirq time_steal time_guest time_guest_nice",
            "seconds",
            true,
        ),
        ("System.Memory", "total available used", "bytes", false),
        ("System.Memory", "used_percent", "percent", false),
        ("System.Disk", "total used free", "bytes", false),
        ("System.Disk", "inodes_total inodes_used inodes_free", "count", false),
        ("System.Disk", "used_percent inodes_used_percent", "percent", false),
        ("System.DiskIO", "read_bytes write_bytes", "bytes", true),
        ("System.DiskIO", "read_count write_count merged_read_count merged_write_count", "count", true),
        ("System.DiskIO", "read_time write_time io_time weighted_io", "milliseconds", true),
        ("System.Network", "bytes_sent bytes_recv", "bytes", true),
        ("System.Network", "packets_sent packets_recv err_in err_out", "count", true),
        ("System.Host", "procs users_loggedin", "count", false),
        ("System.Host", "uptime", "seconds", false),
        ("System.Host", "info", "info", false),
    ];
    for (scope, names, unit, counter) in expected {
        // A machine without a local disk has neither of them.
        if scope.starts_with("System.Disk") && !metrics.keys().any(|name| name.starts_with(&format!("{scope}."))) {
            continue;
        }
        for name in names.split(' ') {
            let full = format!("{scope}.{name}");
            let metric = metrics.get(&full).unwrap_or_else(|| panic!("{full} is missing"));
            assert_eq!(metric.unit, unit, "{full}");
            let (is_counter, points) = points(metric);
            assert_eq!(is_counter, counter, "{full}");
            for point in points {
                assert!(value(point).is_finite() && value(point) >= 0.0, "{full}");
                assert_eq!(point.start_time_unix_nano > 0, counter, "{full}");
                assert_eq!(keys(point), attribute_keys(scope, name, point), "{full}");
            }
        }
    }
}

fn attribute_keys<'a>(scope: &str, name: &str, point: &'a NumberDataPoint) -> BTreeSet<&'a str> {
    let per_core = keys(point).contains("core");
    let keys: &[&str] = match (scope, name) {
        ("System.CPU", "usage_percent") if per_core => &["scope", "core"],
        ("System.CPU", "usage_percent") => &["scope"],
        ("System.CPU", name) if name.starts_with("time_") => &["scope"],
        ("System.Memory", _) => &["source"],
        ("System.Disk", _) => &["device", "fstype", "mountpoint"],
        ("System.DiskIO", _) => &["device"],
        ("System.Network", _) => &["interface"],
        ("System.Host", "info") => return self::keys(point),
        _ => &[],
    };
    keys.iter().copied().collect()
}

#[test]
fn memory_total_is_what_the_kernel_says() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kibibytes: f64 = meminfo.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    let collection = collection();
    let metrics = metrics(&collection);
    let (_, points) = points(metrics["System.Memory.total"]);
    let physical = points.iter().find(|point| point.attributes[0].value == Some(physical())).unwrap();
    assert!((value(physical) - kibibytes * 1024.0).abs() < f64::EPSILON);
}

fn physical() -> opentelemetry_proto::tonic::common::v1::AnyValue {
    crate::attributes::attribute("source", "physical").value.unwrap()
}

#[test]
fn a_collection_counts_its_points() {
    let collection = collection();
    let counted: usize = metrics(&collection).values().map(|metric| points(metric).1.len()).sum();
    assert_eq!(collection.points(), counted);
    assert!(counted > 40);
}

#[test]
fn fullness_leaves_the_reserve_of_root_out() {
    let mut sheet = Sheet::new("System.Disk", Moment { now: 1, boot: 0 });
    let mount = procfs::disk::Mount { device: "/dev/sda1".into(), fstype: "ext4".into(), mountpoint: "/".into() };
    let capacity =
        Capacity { block_bytes: 10, blocks: 100, blocks_free: 40, blocks_available: 20, inodes: 8, inodes_free: 6 };
    disk::fill_space(&mut sheet, &mount, capacity);
    let scope = sheet.finish();
    let of = |name: &str| value(&points(scope.metrics.iter().find(|metric| metric.name == name).unwrap()).1[0]);
    assert!((of("used") - 600.0).abs() < 1e-9 && (of("free") - 200.0).abs() < 1e-9);
    assert!((of("used_percent") - 75.0).abs() < 1e-9);
    assert!((of("inodes_used_percent") - 25.0).abs() < 1e-9);
}

#[test]
fn what_is_too_much_for_one_request_goes_in_several_without_loss() {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    let collection = collection();
    let (all, names) = (collection.points(), metrics(&collection).len());
    let largest = metrics(&collection).values().map(|metric| metric.encoded_len()).max().unwrap();
    let requests = collection.requests(2048.max(largest));
    assert!(requests.len() > 3);
    let mut seen = 0;
    for (points, payload) in &requests {
        assert!(payload.len() <= 2048.max(largest) + 1024, "{}", payload.len());
        let request = ExportMetricsServiceRequest::decode(payload.as_slice()).unwrap();
        let again = Collection { request, failures: Vec::new() };
        assert_eq!(again.points(), *points);
        assert!(again.request.resource_metrics[0].resource.is_some());
        seen += metrics(&again).len();
    }
    assert_eq!((requests.iter().map(|(points, _)| points).sum::<usize>(), seen), (all, names));
}
