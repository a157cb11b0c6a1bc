//! TLS: new certificates without a restart, and clients that show one.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use edge::{Tls, TlsFiles, TlsMode};
use pki::Authority;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{PATIENCE, Port};

fn issue(authority: &Authority, folder: &Path) {
    let issued = authority.issue("edge", &["localhost"]).unwrap();
    fs::write(folder.join("cert.pem"), issued.certificate).unwrap();
    fs::write(folder.join("key.pem"), issued.key).unwrap();
}

async fn open(authority: &Authority) -> (Port, TempDir) {
    lifecycle::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    issue(authority, folder.path());
    fs::write(folder.path().join("ca.pem"), authority.certificate()).unwrap();
    let path = |name: &str| folder.path().join(name);
    let files = TlsFiles { certificate: path("cert.pem"), key: path("key.pem"), client_ca: Some(path("ca.pem")) };
    let tls = Tls::load(TlsMode::Optional, Some(files)).unwrap();
    (Port::open_with(&["--certificate-check", "20ms"], tls).await, folder)
}

/// What `/who` answers a client that trusts `authority` and shows a certificate of `shown`.
async fn asks(port: &Port, authority: &Authority, shown: Option<&Authority>) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let issued = authority.issue("agent-7", &["web-1"]).unwrap();
            let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let stream = TcpStream::connect(port.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let mut stream = connected.map_err(|error| error.to_string())?;
    let request = b"GET /who HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(answer).unwrap().rsplit("\r\n").next().unwrap().trim().to_owned())
}

#[tokio::test]
async fn a_certificate_that_changes_is_shown_without_a_restart_and_a_broken_one_never() {
    let (first, second) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (port, folder) = open(&first).await;
    assert_eq!(asks(&port, &first, None).await.unwrap(), "127.0.0.1");
    fs::write(folder.path().join("cert.pem"), "no certificate").unwrap();
    port.until_metric("sightline_edge_certificates_total{port=\"http\",outcome=\"unusable\"}", 1).await;
    assert_eq!(asks(&port, &first, None).await.unwrap(), "127.0.0.1");
    issue(&second, folder.path());
    testkit::eventually("the new certificate", PATIENCE, async || asks(&port, &second, None).await).await;
    assert!(asks(&port, &first, None).await.is_err());
}

#[tokio::test]
async fn a_client_is_who_its_certificate_says_if_our_authority_signed_it() {
    let (ours, foreign) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (port, _folder) = open(&ours).await;
    assert_eq!(asks(&port, &ours, Some(&ours)).await.unwrap(), "127.0.0.1 agent-7");
    assert!(asks(&port, &ours, Some(&foreign)).await.is_err());
    let mut plain = port.connect().await;
    plain.write(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await;
    plain.until("127.0.0.1").await;
}
