//! Calls over replicas that come and go, with certificates that change.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use lifecycle::Process;
use pki::{Authority, Issued};
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::Settings;

fn issued(authority: &Authority, service: &str) -> Issued {
    authority.issue(service, &[service, "localhost"]).unwrap()
}

fn identity(authority: &Authority, service: &str) -> Identity {
    let issued = issued(authority, service);
    Identity::from_pem(authority.certificate(), issued.certificate, issued.key)
}

fn channel_to(identity: &Identity, addresses: Vec<SocketAddr>) -> Channel {
    let target = Target::parse("https://localhost:1").unwrap();
    connections(identity, Target { addresses: Addresses::Fixed(addresses), ..target }).unwrap()
}

async fn replica(identity: &Identity) -> (Process, SocketAddr) {
    let process = Process::for_test();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let address = crate::serve(&process, "registry", identity, anywhere, Routes::default()).await.unwrap();
    (process, address)
}

/// The status that whichever replica has its turn gives of itself.
async fn status(channel: &Channel) -> Result<i32, Status> {
    let answer = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await?;
    Ok(answer.into_inner().status)
}

#[tokio::test]
async fn calls_reach_every_replica_and_go_on_when_one_is_gone() {
    let authority = Authority::new().unwrap();
    let server = identity(&authority, "registry");
    let ((one, at_one), (other, at_other)) = (replica(&server).await, replica(&server).await);
    let _unready = other.ready("something");
    let channel = channel_to(&identity(&authority, "api-gateway"), vec![at_one, at_other]);
    let mut seen = HashSet::new();
    while seen.len() < 2 {
        for _ in 0..CONNECTIONS {
            seen.insert(status(&channel).await.unwrap());
        }
    }
    one.stop().await;
    // What was under way on a connection that ends may fail; what begins then finds the other replica.
    let mut failed = 0;
    for _ in 0..4 * CONNECTIONS {
        failed += usize::from(status(&channel).await.is_err());
    }
    assert!(failed <= CONNECTIONS, "{failed} calls failed although a replica was there");
    other.stop().await;
    assert!(status(&channel).await.is_err(), "with nobody left, calls fail at once");
}

fn write(folder: &Path, roots: &[&Authority], issued: &Issued) -> Settings {
    let roots: String = roots.iter().map(|authority| authority.certificate()).collect();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    Settings {
        tls_ca_file: file("ca.pem", &roots),
        tls_cert_file: file("cert.pem", &issued.certificate),
        tls_key_file: file("key.pem", &issued.key),
    }
}

#[tokio::test]
async fn both_sides_use_certificates_that_were_renewed_without_a_restart() {
    let (old, new) = (Authority::new().unwrap(), Authority::new().unwrap());
    let folders = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let load = |settings: &Settings| Identity::load_every(Duration::ZERO, settings).unwrap();
    let server = load(&write(folders.0.path(), &[&old], &issued(&old, "registry")));
    let caller = load(&write(folders.1.path(), &[&old], &issued(&old, "api-gateway")));
    let (process, address) = replica(&server).await;
    status(&channel_to(&caller, vec![address])).await.unwrap();
    let renewed = identity(&new, "api-gateway");
    status(&channel_to(&renewed, vec![address])).await.expect_err("nobody knows the new authority yet");

    write(folders.0.path(), &[&old, &new], &issued(&new, "registry"));
    status(&channel_to(&renewed, vec![address])).await.expect("the server has the new certificate and trusts both");
    status(&channel_to(&caller, vec![address])).await.expect_err("the caller does not yet");
    write(folders.1.path(), &[&old, &new], &issued(&new, "api-gateway"));
    status(&channel_to(&caller, vec![address])).await.unwrap();
    process.stop().await;
}

#[tokio::test]
async fn who_is_away_is_told_in_a_line_without_a_stack() {
    let authority = Authority::new().unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = status(&channel_to(&identity(&authority, "api-gateway"), vec![gone])).await.unwrap_err();
    let shown = away.to_string();
    assert!(shown.contains("Connection refused") && !shown.contains("backtrace") && !shown.contains('\n'), "{shown}");
}
