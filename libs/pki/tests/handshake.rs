//! Two sides with certificates of one authority come together over mutual TLS, and nobody else does.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::sync::Arc;

use pki::{Authority, Issued};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    Arc::new(roots)
}

fn identity(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    (vec![certificate], PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap())
}

/// The server trusts `authority`; the client has `caller` and expects `host`.
fn handshake(authority: &Authority, server: &Issued, caller: &Issued, host: &'static str) -> Result<(), rustls::Error> {
    let verifier = WebPkiClientVerifier::builder(roots(authority)).build().unwrap();
    let (chain, key) = identity(server);
    let server = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let (chain, key) = identity(caller);
    let client =
        ClientConfig::builder().with_root_certificates(roots(authority)).with_client_auth_cert(chain, key).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(host).unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn both_sides_trust_their_authority_by_name_and_by_address() {
    let authority = Authority::new().unwrap();
    let server = authority.issue("auth", &["auth", "localhost", "127.0.0.1", "::1"]).unwrap();
    let caller = authority.issue("registry", &["registry"]).unwrap();
    for host in ["auth", "localhost", "127.0.0.1", "::1"] {
        handshake(&authority, &server, &caller, host).unwrap();
    }
    assert!(handshake(&authority, &server, &caller, "registry").is_err());
}

#[test]
fn an_authority_that_was_stored_and_loaded_signs_as_before() {
    let first = Authority::new().unwrap();
    let server = first.issue("auth", &["auth"]).unwrap();
    let second = Authority::load(first.certificate(), &first.key()).unwrap();
    let caller = second.issue("registry", &["registry"]).unwrap();
    handshake(&first, &server, &caller, "auth").unwrap();
}

#[test]
fn a_stranger_s_certificate_is_refused() {
    let authority = Authority::new().unwrap();
    let server = authority.issue("auth", &["auth"]).unwrap();
    let stranger = Authority::new().unwrap().issue("registry", &["registry"]).unwrap();
    assert!(handshake(&authority, &server, &stranger, "auth").is_err());
}
