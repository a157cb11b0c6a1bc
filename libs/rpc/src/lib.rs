//! Makes every gRPC server and channel between services: mutual TLS from one CA, one table of who may call whom,
//! trace context, health, drain.
//!
//! The name in a certificate is the service. The user on whose behalf a service calls travels along as a bearer token
//! ([`forward`]); the service that owns the thing checks it.

mod callers;
mod channel;
mod server;

use std::path::PathBuf;

use anyhow::Context as _;
use tonic::transport::{Certificate, Identity as KeyPair};

pub use channel::{Channel, channel, forward};
pub use server::serve;

/// Where the certificates lie.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Settings {
    /// PEM file of the CA that signs the services' certificates
    #[arg(long, env = "SIGHTLINE_TLS_CA_FILE")]
    pub tls_ca_file: PathBuf,
    /// PEM file of this service's certificate, whose DNS name is the service's name
    #[arg(long, env = "SIGHTLINE_TLS_CERT_FILE")]
    pub tls_cert_file: PathBuf,
    /// PEM file of the certificate's private key
    #[arg(long, env = "SIGHTLINE_TLS_KEY_FILE")]
    pub tls_key_file: PathBuf,
}

/// A service's certificate and the CA that it trusts.
#[derive(Clone)]
pub struct Identity {
    ca: Certificate,
    pair: KeyPair,
}

impl Identity {
    /// Reads the three files.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn load(settings: &Settings) -> anyhow::Result<Self> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        Ok(Self::from_pem(read(&settings.tls_ca_file)?, read(&settings.tls_cert_file)?, read(&settings.tls_key_file)?))
    }

    /// From PEM texts.
    pub fn from_pem(ca: impl AsRef<[u8]>, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        Self { ca: Certificate::from_pem(ca), pair: KeyPair::from_pem(certificate, key) }
    }
}
