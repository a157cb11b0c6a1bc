//! TLS and plaintext on the same port.

use std::path::Path;

use bus::Stream;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::support::{Gateway, attributes, gauge, knock, metrics_in, value_of};

const HOST: [(&str, &str); 1] = [("host.id", "h1")];

/// A gateway with a certificate, and the folder that has its CA.
async fn start(mode: &str) -> (Gateway, TempDir) {
    start_for("127.0.0.0/8", mode).await
}

/// One that takes strangers from these networks.
async fn start_for(networks: &str, mode: &str) -> (Gateway, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    pki::ensure(folder.path(), &["ingest=localhost,127.0.0.1".parse().unwrap()]).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key, authority) = (path("ingest.pem"), path("ingest-key.pem"), path("ca.pem"));
    let arguments = [
        "--anonymous-networks",
        networks,
        "--ingest-tls",
        mode,
        "--ingest-tls-cert-file",
        &certificate,
        "--ingest-tls-key-file",
        &key,
        "--ingest-tls-client-ca-file",
        &authority,
    ];
    (Gateway::start_with(&testkit::namespace(), &arguments).await, folder)
}

async fn over_tls(gateway: &Gateway, folder: &Path) -> Channel {
    let authority = Certificate::from_pem(std::fs::read(folder.join("ca.pem")).unwrap());
    Channel::from_shared(format!("https://localhost:{}", gateway.addresses.grpc.port()))
        .unwrap()
        .tls_config(ClientTlsConfig::new().ca_certificate(authority))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn the_first_byte_tells_tls_from_plaintext() {
    let (gateway, folder) = start("optional").await;
    gateway.metrics().await.export(gauge(&HOST, 1)).await.unwrap();
    MetricsServiceClient::new(over_tls(&gateway, folder.path()).await).export(gauge(&HOST, 1)).await.unwrap();
    let authority = reqwest::Certificate::from_pem(&std::fs::read(folder.path().join("ca.pem")).unwrap()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    for base in [
        format!("https://localhost:{}", gateway.addresses.http.port()),
        format!("http://localhost:{}", gateway.addresses.http.port()),
    ] {
        let request = http.post(format!("{base}/v1/metrics")).header("content-type", "application/json").body("{}");
        assert_eq!(request.send().await.unwrap().status(), 200, "{base}");
    }
}

#[tokio::test]
async fn where_tls_is_required_plaintext_is_cut_off() {
    let (gateway, folder) = start("required").await;
    MetricsServiceClient::new(over_tls(&gateway, folder.path()).await).export(gauge(&HOST, 1)).await.unwrap();
    let mut plain = knock(gateway.addresses.http).await;
    plain.write_all(b"POST /v1/metrics HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Reset or closed, either is an end.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for_and_disturbs_nobody() {
    let (gateway, _folder) = start("optional").await;
    let mut silent = knock(gateway.addresses.grpc).await;
    gateway.metrics().await.export(gauge(&HOST, 1)).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(crate::support::PATIENCE, silent.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the silent connection is still open");
}

#[tokio::test]
async fn a_verified_certificate_is_a_credential() {
    let (gateway, folder) = start_for("10.0.0.0/8", "required").await;
    let status = MetricsServiceClient::new(over_tls(&gateway, folder.path()).await).export(gauge(&HOST, 1)).await;
    assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);
    // One that names no agent, as a fleet of the field's agents may share.
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let shown = Identity::from_pem(read("ingest.pem"), read("ingest-key.pem"));
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.pem"))).identity(shown);
    let url = format!("https://localhost:{}", gateway.addresses.grpc.port());
    let channel = Channel::from_shared(url).unwrap().tls_config(tls).unwrap().connect().await.unwrap();
    let mut tap = gateway.tap(Stream::Metrics).await;
    let mut client = MetricsServiceClient::new(channel);
    client.export(gauge(&[("host.id", "h1"), ("agent.id", "a1")], 1)).await.unwrap();
    let envelope = tap.next().await;
    assert_eq!(envelope.tenant, "default");
    let stamped = attributes(metrics_in(&envelope)[0].resource.as_ref());
    assert_eq!(value_of(&stamped, "sightline.agent.id"), "a1");
}
