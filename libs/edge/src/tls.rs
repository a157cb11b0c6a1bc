//! TLS or not: the first byte of a connection tells. Certificates are read again when their files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::wire::Stream;

/// The type of a TLS record that begins a handshake. No HTTP method and no HTTP/2 preface begins so.
const HANDSHAKE: u8 = 0x16;

/// Whether clients speak TLS.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Plaintext only.
    Off,
    /// Both, on the same port.
    Optional,
    /// TLS only.
    Required,
}

/// PEM files of a port.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The CA that clients' certificates must come from, when they show one.
    pub client_ca: Option<PathBuf>,
}

/// How connections of a port are opened. Clones share the certificate.
#[derive(Clone)]
pub struct Tls(Option<Arc<Inner>>);

struct Inner {
    required: bool,
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// The files' bytes when they were last looked at, whether they could be used or not.
    seen: Mutex<Vec<Vec<u8>>>,
}

impl Tls {
    /// Plaintext.
    pub const OFF: Self = Self(None);

    /// Reads certificate, key and, where clients' certificates are verified, their CA.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn load(mode: TlsMode, files: Option<TlsFiles>) -> anyhow::Result<Self> {
        let Some(files) = files.filter(|_| mode != TlsMode::Off) else { return Ok(Self::OFF) };
        let bytes = files.read()?;
        let config = files.config(&bytes)?;
        Ok(Self(Some(Arc::new(Inner {
            required: mode == TlsMode::Required,
            files,
            config: ArcSwap::from_pointee(config),
            seen: Mutex::new(bytes),
        }))))
    }

    /// Reads the files again; true when they changed and are used from now on, for connections that begin.
    ///
    /// # Errors
    /// They changed and cannot be used: what was read before stays. The same files are complained about once.
    pub(crate) fn refresh(&self) -> anyhow::Result<bool> {
        let Some(inner) = &self.0 else { return Ok(false) };
        // While files are being replaced one may be missing for a moment.
        let bytes = inner.files.read().unwrap_or_default();
        let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == bytes {
            return Ok(false);
        }
        let config = inner.files.config(&bytes);
        *seen = bytes;
        inner.config.store(Arc::new(config?));
        Ok(true)
    }

    /// Opens a connection: reads its first byte, and shakes hands where it is TLS.
    pub(crate) async fn open(&self, stream: TcpStream) -> Result<Stream, String> {
        let Some(inner) = &self.0 else { return Ok(Stream::Plain(stream)) };
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1..) if first[0] == HANDSHAKE => {
                let acceptor = TlsAcceptor::from(inner.config.load_full());
                let stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
                Ok(Stream::Tls(Box::new(stream)))
            }
            Ok(1..) if inner.required => Err("plaintext where TLS is required".to_owned()),
            Ok(1..) => Ok(Stream::Plain(stream)),
            Ok(_) => Err("closed at once".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl TlsFiles {
    /// Certificate, key and CA, as they are now.
    fn read(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let paths = [&self.certificate, &self.key].into_iter().chain(&self.client_ca);
        paths.map(|path| std::fs::read(path).with_context(|| format!("read {}", path.display()))).collect()
    }

    fn config(&self, bytes: &[Vec<u8>]) -> anyhow::Result<ServerConfig> {
        let [certificate, key, authorities @ ..] = bytes else { anyhow::bail!("certificate or key are gone") };
        let builder = match (&self.client_ca, authorities) {
            (Some(path), [bytes, ..]) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path, bytes)? {
                    roots.add(authority).with_context(|| format!("use the CA in {}", path.display()))?;
                }
                // Agents in the field may show a certificate, and most clients have none.
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
                ServerConfig::builder().with_client_cert_verifier(verifier.context("verify clients' certificates")?)
            }
            _ => ServerConfig::builder().with_no_client_auth(),
        };
        let private = PrivateKeyDer::from_pem_slice(key).with_context(|| format!("read {}", self.key.display()))?;
        let mut config = builder
            .with_single_cert(certificates(&self.certificate, certificate)?, private)
            .with_context(|| format!("use the certificate in {}", self.certificate.display()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(path: &Path, bytes: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    read.with_context(|| format!("read {}", path.display()))
}
