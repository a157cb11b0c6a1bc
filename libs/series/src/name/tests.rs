//! Names and types of everything that GoSight's agents report, and a sample of other people's.

use super::*;

/// Scope, names, whether they count (the agents' own list of metrics).
const AGENT: [(&str, &str, bool); 7] = [
    ("System.CPU", "usage_percent load_avg_1 load_avg_5 load_avg_15 count_logical count_physical clock_mhz", false),
    (
        "System.CPU",
        "time_user time_system time_idle time_nice time_iowait time_irq time_softirq time_steal time_guest \
         time_guest_nice",
        true,
    ),
    ("System.Memory", "total available used used_percent", false),
    ("System.Disk", "total used free used_percent inodes_total inodes_used inodes_free inodes_used_percent", false),
    (
        "System.DiskIO",
        "read_bytes write_bytes read_count write_count read_time write_time io_time weighted_io merged_read_count \
         merged_write_count",
        true,
    ),
    ("System.Network", "bytes_sent bytes_recv packets_sent packets_recv err_in err_out", true),
    ("System.Host", "procs users_loggedin uptime info", false),
];

#[test]
fn an_agents_metric_keeps_its_name_and_gets_the_type_of_the_table() {
    for (scope, names, counts) in AGENT {
        for name in names.split_whitespace() {
            let expected = format!("{}_{name}", scope.to_ascii_lowercase().replace('.', "_"));
            let full = of_agent(scope, name).unwrap_or_else(|| panic!("{scope} is an agent's scope"));
            assert_eq!(full, expected);
            assert_eq!(agent_counts(&full), counts, "{full}");
        }
    }
    assert_eq!(of_agent("Container.Docker", "cpu_percent").as_deref(), Some("container_docker_cpu_percent"));
}

#[test]
fn other_scopes_are_not_an_agents() {
    for scope in ["", "System", "System.", "otelcol/hostmetrics", "Systemd.Unit", "my.System"] {
        assert_eq!(of_agent(scope, "total"), None, "{scope}");
    }
}

#[test]
fn other_names_follow_opentelemetrys_translation() {
    let gauge = |name, unit| translated(name, unit, false, true);
    let sum = |name, unit| translated(name, unit, false, false);
    let counter = |name, unit| translated(name, unit, true, false);
    assert_eq!(gauge("system.memory.usage", "By"), "system_memory_usage_bytes");
    assert_eq!(gauge("system.cpu.utilization", "1"), "system_cpu_utilization_ratio");
    assert_eq!(sum("queue.size", "1"), "queue_size");
    assert_eq!(sum("http.server.active_requests", "{request}"), "http_server_active_requests");
    assert_eq!(counter("http.requests", "{request}"), "http_requests_total");
    assert_eq!(counter("http.total.requests", ""), "http_requests_total");
    assert_eq!(counter("process.cpu.time", "s"), "process_cpu_time_seconds_total");
    assert_eq!(gauge("disk.speed", "By/s"), "disk_speed_bytes_per_second");
    assert_eq!(gauge("drop.rate", "{packet}/s"), "drop_rate_per_second");
    assert_eq!(gauge("request_duration_seconds", "s"), "request_duration_seconds");
    assert_eq!(gauge("2xx.share", "%"), "_2xx_share_percent");
    assert_eq!(gauge("job:load", ""), "job:load");
    assert_eq!(gauge("größe", ""), "gr_uf6_udf_e");
    assert_eq!(gauge("cpu.温度", "Cel"), "cpu_u6e29_u5ea6_celsius");
    assert_eq!(counter("%", ""), "u25_total");
    assert_eq!(gauge("reply", "\u{b5}s"), "reply_microseconds");
}
