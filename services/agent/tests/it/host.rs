//! This host's own metrics and processes, as a gateway sees them.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as PointValue;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::Identity;

use crate::support::{Gateway, Home};

#[tokio::test]
async fn memory_total_arrives_under_the_hosts_resource() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let process = home.start(gateway.address).await;
    gateway.until(true, |record| !record.metrics.is_empty()).await;
    process.stop().await;
    let record = gateway.record.lock().unwrap();
    let resource = &record.metrics[0].1.resource_metrics[0];
    let attribute = |key: &str| {
        let found = resource.resource.as_ref().unwrap().attributes.iter().find(|attribute| attribute.key == key);
        match found.unwrap().value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::StringValue(value) => value.clone(),
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(attribute("resource.kind"), "host");
    let id = std::fs::read_to_string(home.path("state/agent-id")).unwrap();
    assert_eq!(attribute("agent.id"), id.trim());

    let scope = resource.scope_metrics.iter().find(|scope| scope.scope.as_ref().unwrap().name == "System.Memory");
    let total = scope.unwrap().metrics.iter().find(|metric| metric.name == "total").unwrap();
    let Some(Data::Gauge(gauge)) = &total.data else { panic!("total is no gauge") };
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kibibytes: f64 = meminfo.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(gauge.data_points[0].value, Some(PointValue::AsDouble(kibibytes * 1024.0)));
}

#[tokio::test]
async fn tls_verifies_the_gateway_by_the_given_ca() {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    let gateway = Gateway::start_with_tls(Identity::from_pem(certificate.pem(), key.serialize_pem())).await;

    let home = Home::new();
    std::fs::write(home.path("ca.pem"), ca.pem()).unwrap();
    let more = ["--ca-file".to_owned(), home.path("ca.pem").to_str().unwrap().to_owned()];
    let process = home.start_with(&format!("https://{}", gateway.address), &more).await;
    home.append(["over TLS"]);
    gateway.until(vec!["over TLS".to_owned()], |record| record.stored()).await;
    process.stop().await;
}
