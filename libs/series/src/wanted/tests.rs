//! One table for rules, live streams and queries.

use proptest::prelude::*;
use regex::Regex;

use super::*;
use crate::name::{of_agent, translated};

#[derive(Clone, Copy)]
enum Made {
    Gauge(&'static str, &'static str),
    Counter(&'static str, &'static str),
    /// The tail that the series has.
    Histogram(&'static str, &'static str, &'static str),
    Agent(&'static str, &'static str),
}

use Made::{Agent, Counter, Gauge, Histogram};

fn stored(made: Made) -> String {
    match made {
        Gauge(name, unit) => translated(name, unit, false, true),
        Counter(name, unit) => translated(name, unit, true, false),
        Histogram(name, unit, tail) => format!("{}_{tail}", translated(name, unit, false, false)),
        Agent(scope, name) => of_agent(scope, name).expect("an agent's"),
    }
}

/// What somebody writes, what the instrument is, its stored name, and whether that is meant.
const TABLE: [(&str, Made, &str, bool); 34] = [
    ("x.latency", Gauge("x.latency", "s"), "x_latency_seconds", true),
    ("x.latency", Gauge("x.latency", ""), "x_latency", true),
    ("x_latency_seconds", Gauge("x.latency", "s"), "x_latency_seconds", true),
    ("x_latency", Gauge("x.latency", "s"), "x_latency_seconds", false),
    ("x.seconds", Counter("x.seconds", "s"), "x_seconds_total", true),
    ("x.seconds.total", Counter("x.seconds", "s"), "x_seconds_total", true),
    ("http.requests", Counter("http.requests", "{request}"), "http_requests_total", true),
    ("requests.total", Counter("requests.total", ""), "requests_total", true),
    ("process.cpu.time", Counter("process.cpu.time", "s"), "process_cpu_time_seconds_total", true),
    ("disk.speed", Gauge("disk.speed", "By/s"), "disk_speed_bytes_per_second", true),
    ("drop.rate", Gauge("drop.rate", "{packet}/s"), "drop_rate_per_second", true),
    ("cpu.utilization", Gauge("cpu.utilization", "1"), "cpu_utilization_ratio", true),
    ("myApp.queueSize", Gauge("myApp.queueSize", ""), "myApp_queueSize", true),
    ("myapp.queuesize", Gauge("myApp.queueSize", ""), "myApp_queueSize", false),
    ("System.CPU.usage_percent", Agent("System.CPU", "usage_percent"), "system_cpu_usage_percent", true),
    ("system.cpu.usage_percent", Agent("System.CPU", "usage_percent"), "system_cpu_usage_percent", true),
    ("system_cpu_usage_percent", Agent("System.CPU", "usage_percent"), "system_cpu_usage_percent", true),
    ("System_CPU_usage_percent", Agent("System.CPU", "usage_percent"), "system_cpu_usage_percent", false),
    ("system.memory.total", Agent("System.Memory", "total"), "system_memory_total", true),
    ("Container.Docker.cpu_percent", Agent("Container.Docker", "cpu_percent"), "container_docker_cpu_percent", true),
    ("System.Load", Gauge("System.Load", ""), "System_Load", true),
    ("system.memory.usage", Gauge("system.memory.usage", "By"), "system_memory_usage_bytes", true),
    (
        "http.server.duration.bucket",
        Histogram("http.server.duration", "s", "bucket"),
        "http_server_duration_seconds_bucket",
        true,
    ),
    (
        "http.server.duration_count",
        Histogram("http.server.duration", "s", "count"),
        "http_server_duration_seconds_count",
        true,
    ),
    (
        "http.server.duration",
        Histogram("http.server.duration", "s", "bucket"),
        "http_server_duration_seconds_bucket",
        false,
    ),
    ("process.count", Gauge("process.count", ""), "process_count", true),
    ("温度", Gauge("温度", "Cel"), "u6e29_u5ea6_celsius", true),
    ("湿度", Gauge("温度", "Cel"), "u6e29_u5ea6_celsius", false),
    ("größe", Gauge("größe", ""), "gr_uf6_udf_e", true),
    ("2xx", Gauge("2xx", ""), "_2xx", true),
    ("%", Gauge("%", ""), "u25", true),
    (" up ", Gauge("up", ""), "up", true),
    ("x.latency", Gauge("x.latency.other", ""), "x_latency_other", false),
    ("job:load:avg", Gauge("job:load:avg", ""), "job:load:avg", true),
];

fn finds(wanted: &WantedName, stored: &str) -> [bool; 3] {
    let keys = wanted.keys();
    let by_key = name_keys(stored).iter().any(|key| keys.contains(key));
    let regex = Regex::new(&format!("^(?:{})$", wanted.regex())).expect("a regular expression");
    [by_key, wanted.matches(stored), regex.is_match(stored)]
}

#[test]
fn rules_streams_and_queries_mean_the_same_series_by_a_name() {
    for (written, made, name, meant) in TABLE {
        assert_eq!(stored(made), name, "{written}");
        assert_eq!(finds(&WantedName::new(written), name), [meant; 3], "{written} and {name}");
    }
}

#[test]
fn a_name_in_the_stored_form_is_itself() {
    assert_eq!(WantedName::new(" http_requests_total ").exact(), Some("http_requests_total"));
    assert_eq!(WantedName::new("http_requests_total").regex(), "http_requests_total");
    assert_eq!(WantedName::new("http.requests").exact(), None);
}

proptest! {
    #[test]
    fn an_instrument_is_found_by_its_name(
        name in "[A-Za-z][A-Za-z0-9]{0,6}([._ /-][a-z0-9ö温]{1,6}){1,4}",
        unit in prop::sample::select(vec!["", "1", "s", "By", "%", "By/s", "{x}", "{x}/min"]),
        monotonic: bool,
    ) {
        let words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).collect();
        prop_assume!(!words.contains(&"total") && !words.contains(&"ratio"));
        let stored = translated(&name, unit, monotonic, !monotonic);
        let wanted = if is_stored_form(&name) { WantedName::new(&name.replace('_', ".")) } else { WantedName::new(&name) };
        prop_assert_eq!(finds(&wanted, &stored), [true; 3], "{} is stored as {}", name, stored);
    }

    #[test]
    fn index_and_expression_agree_about_any_name(
        wanted in "[a-c](\\.(a|total|ratio|sum|count|per|second|seconds|bytes|bucket)){0,4}",
        stored in "[a-c](_(a|total|ratio|sum|count|per|second|seconds|bytes|bucket)){0,6}",
    ) {
        let found = finds(&WantedName::new(&wanted), &stored);
        prop_assert!(found == [false; 3] || found == [true; 3], "{:?}: {} and {}", found, wanted, stored);
    }
}
