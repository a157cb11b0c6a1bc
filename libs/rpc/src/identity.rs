//! A service's certificate and the CA that it trusts, for both sides of a call.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::reloading::Reloading;

/// Where the certificates lie.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Settings {
    /// PEM file of the CA that signs the services' certificates; it may hold the next one beside it
    #[arg(long, env = "SIGHTLINE_TLS_CA_FILE")]
    pub tls_ca_file: PathBuf,
    /// PEM file of this service's certificate, whose DNS name is the service's name
    #[arg(long, env = "SIGHTLINE_TLS_CERT_FILE")]
    pub tls_cert_file: PathBuf,
    /// PEM file of the certificate's private key
    #[arg(long, env = "SIGHTLINE_TLS_KEY_FILE")]
    pub tls_key_file: PathBuf,
}

/// A service's certificate and the CA that it trusts. What is read from files is read again when they change: connections
/// that begin after it use the new one.
#[derive(Clone)]
pub struct Identity {
    tls: Reloading<Result<Tls, String>>,
}

/// Both sides' ways to speak TLS.
struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// Reads the three files.
    ///
    /// # Errors
    /// Names the file that cannot be read; certificates and keys that do not belong together.
    pub fn load(settings: &Settings) -> anyhow::Result<Self> {
        Self::load_every(crate::reloading::EVERY, settings)
    }

    pub(crate) fn load_every(every: Duration, settings: &Settings) -> anyhow::Result<Self> {
        let Settings { tls_ca_file, tls_cert_file, tls_key_file } = settings.clone();
        let paths = vec![tls_ca_file, tls_cert_file, tls_key_file];
        let make = |files: &[Vec<u8>]| match files {
            [ca, certificate, key] => Tls::new(ca, certificate, key).map(Ok),
            _ => anyhow::bail!("read three files"),
        };
        Ok(Self { tls: Reloading::every(every, paths, make)? })
    }

    /// From PEM texts. What is wrong with them is said when a server or a channel is made.
    pub fn from_pem(ca: impl AsRef<[u8]>, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let tls = Tls::new(ca.as_ref(), certificate.as_ref(), key.as_ref());
        Self { tls: Reloading::fixed(tls.map_err(|error| format!("{error:#}"))) }
    }

    /// How to call.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn client(&self) -> anyhow::Result<Arc<ClientConfig>> {
        self.with(|tls| Arc::clone(&tls.client))
    }

    /// How to be called: by nobody without a certificate of our CA.
    ///
    /// # Errors
    /// As [`Identity::client`].
    pub fn server(&self) -> anyhow::Result<Arc<ServerConfig>> {
        self.with(|tls| Arc::clone(&tls.server))
    }

    fn with<T>(&self, take: impl FnOnce(&Tls) -> T) -> anyhow::Result<T> {
        match self.tls.current().as_ref() {
            Ok(tls) => Ok(take(tls)),
            Err(error) => Err(anyhow::anyhow!("use the service's certificate: {error}")),
        }
    }
}

impl Tls {
    fn new(ca: &[u8], certificate: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(ca) {
            roots.add(root.context("read the CA's certificate")?).context("use the CA's certificate")?;
        }
        anyhow::ensure!(!roots.is_empty(), "the CA's file holds no certificate");
        let roots = Arc::new(roots);
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().context("read the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).context("read the certificate's key")?;
        let callers = WebPkiClientVerifier::builder(Arc::clone(&roots)).build().context("use the CA's certificate")?;
        let mut server = ServerConfig::builder()
            .with_client_cert_verifier(callers)
            .with_single_cert(chain.clone(), key.clone_key())
            .context("use the certificate with its key")?;
        let mut client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .context("use the certificate with its key")?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}
