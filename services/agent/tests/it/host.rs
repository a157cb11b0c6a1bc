//! This host's own metrics and processes, as a gateway sees them.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as PointValue;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::Identity;

use crate::support::{Gateway, Home, append};

#[tokio::test]
async fn memory_total_arrives_under_the_hosts_resource() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let process = home.start(gateway.address).await;
    gateway.until(true, |record| !record.metrics.is_empty()).await;
    process.stop().await;
    let record = gateway.record.lock().unwrap();
    let resource = &record.metrics[0].1.resource_metrics[0];
    let attributes = &resource.resource.as_ref().unwrap().attributes;
    assert_eq!(attribute(attributes, "resource.kind"), "host");
    let id = std::fs::read_to_string(home.path("state/agent-id")).unwrap();
    assert_eq!(attribute(attributes, "agent.id"), id.trim());

    let scope = resource.scope_metrics.iter().find(|scope| scope.scope.as_ref().unwrap().name == "System.Memory");
    let total = scope.unwrap().metrics.iter().find(|metric| metric.name == "total").unwrap();
    let Some(Data::Gauge(gauge)) = &total.data else { panic!("total is no gauge") };
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kibibytes: f64 = meminfo.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(gauge.data_points[0].value, Some(PointValue::AsDouble(kibibytes * 1024.0)));
}

/// A gateway whose certificate comes from a CA of its own, and that CA.
async fn gateway_with_tls() -> (Gateway, String) {
    let (identity, ca) = certificate();
    (Gateway::start_with_tls(identity).await, ca)
}

fn certificate() -> (Identity, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    (Identity::from_pem(certificate.pem(), key.serialize_pem()), ca.pem())
}

#[tokio::test]
async fn tls_verifies_the_gateway_by_the_given_ca() {
    let (gateway, ca) = gateway_with_tls().await;
    let home = Home::new();
    std::fs::write(home.path("ca.pem"), ca).unwrap();
    let more = ["--ca-file".to_owned(), home.path("ca.pem").to_str().unwrap().to_owned()];
    let process = home.start_with(&format!("https://{}", gateway.address), &more).await;
    home.append(["over TLS"]);
    gateway.until(vec!["over TLS".to_owned()], |record| record.stored()).await;
    process.stop().await;
}

#[tokio::test]
async fn a_ca_file_that_is_replaced_is_used_without_a_restart() {
    let (gateway, ca) = gateway_with_tls().await;
    let (_, another_ca) = certificate();
    let home = Home::new();
    std::fs::write(home.path("ca.pem"), another_ca).unwrap();
    let more = ["--ca-file".to_owned(), home.path("ca.pem").to_str().unwrap().to_owned()];
    let process = home.start_with(&format!("https://{}", gateway.address), &more).await;
    home.append(["over TLS"]);
    crate::support::eventually(|| home.spooled() == 1).await;
    assert!(gateway.record.lock().unwrap().logs.is_empty());
    std::fs::write(home.path("new.pem"), ca).unwrap();
    std::fs::rename(home.path("new.pem"), home.path("ca.pem")).unwrap();
    gateway.until(vec!["over TLS".to_owned()], |record| record.stored()).await;
    process.stop().await;
}

#[tokio::test]
async fn without_a_ca_file_the_cas_of_the_system_are_trusted() {
    let (gateway, ca) = gateway_with_tls().await;
    let home = Home::new();
    std::fs::write(home.path("ca.pem"), ca).unwrap();
    // A process of its own: what the system trusts is told by its environment.
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_agent"))
        .args(home.arguments(&format!("https://localhost:{}", gateway.address.port())))
        .env("SSL_CERT_FILE", home.path("ca.pem"))
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    gateway.until(true, |record| !record.metrics.is_empty()).await;
    child.kill().await.unwrap();
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.unwrap().value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(value) => value,
        other => panic!("unexpected {other:?}"),
    }
}

/// A host as it is seen below a folder: the kernel's files as they are here, with another name, size and process.
fn write_host(root: &std::path::Path) {
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for file in ["stat", "loadavg", "cpuinfo", "diskstats", "filesystems", "uptime", "sys/kernel/osrelease"] {
        write(&format!("proc/{file}"), &std::fs::read_to_string(format!("/proc/{file}")).unwrap());
    }
    write(
        "proc/meminfo",
        "MemTotal: 4096 kB\nMemFree: 1024 kB\nMemAvailable: 2048 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    );
    write("proc/sys/kernel/hostname", "the-container");
    write("proc/1/net/dev", "a\nb\n  lan0: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n");
    write("proc/1/mountinfo", "1 0 8:1 / / rw - ext4 /dev/of-the-host rw\n");
    write("proc/77/stat", "77 (daemon) S 1 77 77 0 -1 0 1 2 3 4 50 25 6 7 20 0 9 0 1 4096000 321 0 0");
    write("etc/hostname", "the-host\n");
    write("etc/machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4\n");
    write("var/log/pods/0.log", "");
    std::fs::create_dir_all(root.join("var/log/containers")).unwrap();
    // Absolute, as kubelet makes them: in the agent's own file system it leads nowhere.
    std::os::unix::fs::symlink("/var/log/pods/0.log", root.join("var/log/containers/a.log")).unwrap();
}

#[tokio::test]
async fn in_a_container_the_host_is_what_lies_below_the_given_root() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let root = home.path("host");
    write_host(&root);
    let more = ["--host-root", root.to_str().unwrap(), "--log-files", "/var/log/containers/a.log"].map(str::to_owned);
    let process = home.start_with(&format!("http://{}", gateway.address), &more).await;
    append(&root.join("var/log/pods/0.log"), "from the host\n");
    gateway.until(true, |record| !record.metrics.is_empty() && !record.snapshots.is_empty()).await;
    gateway.until(vec!["from the host".to_owned()], |record| record.stored()).await;
    process.stop().await;

    let record = gateway.record.lock().unwrap();
    let resource = &record.metrics[0].1.resource_metrics[0];
    let attributes = &resource.resource.as_ref().unwrap().attributes;
    assert_eq!(attribute(attributes, "host.id"), "3d1219c7c4c5404aaa1f6d2a48adfda4");
    assert_eq!(attribute(attributes, "host.name"), "the-host");
    let points = |scope: &str, name: &str| {
        let scope = resource.scope_metrics.iter().find(|found| found.scope.as_ref().unwrap().name == scope).unwrap();
        match &scope.metrics.iter().find(|metric| metric.name == name).unwrap().data {
            Some(Data::Gauge(gauge)) => gauge.data_points.clone(),
            Some(Data::Sum(sum)) => sum.data_points.clone(),
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(points("System.Memory", "total")[0].value, Some(PointValue::AsDouble(4096.0 * 1024.0)));
    assert_eq!(attribute(&points("System.Network", "bytes_recv")[0].attributes, "interface"), "lan0");
    let disks = points("System.Disk", "total");
    assert_eq!(disks.len(), 1);
    assert_eq!(attribute(&disks[0].attributes, "mountpoint"), "/");
    assert_eq!(attribute(&disks[0].attributes, "device"), "/dev/of-the-host");
    let pids: Vec<_> = record.snapshots[0].processes.iter().map(|process| process.pid).collect();
    assert_eq!(pids, [77]);
    assert_eq!(attribute(&record.logs[0].records[0].attributes, "log.file.path"), "/var/log/containers/a.log");
}
