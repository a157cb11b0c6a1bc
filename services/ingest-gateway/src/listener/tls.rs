//! TLS or not: the first byte of a connection tells.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use rustls::RootCertStore;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Ingest, TlsMode};
use crate::metrics::Port;

/// The type of a TLS record that begins a handshake. No HTTP method and no HTTP/2 preface begins so.
const HANDSHAKE: u8 = 0x16;

/// How connections of a port are opened.
#[derive(Clone)]
pub enum Tls {
    Off,
    Optional(TlsAcceptor),
    Required(TlsAcceptor),
}

impl Tls {
    /// Reads certificate, key and, where clients' certificates are verified, their CA.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn load(settings: &Ingest, port: Port) -> anyhow::Result<Self> {
        let (Some(certificate), Some(key)) = (&settings.cert_file, &settings.key_file) else { return Ok(Self::Off) };
        let builder = match &settings.client_ca_file {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).with_context(|| format!("use the CA in {}", path.display()))?;
                }
                // Agents in the field may show a certificate, and most clients have none.
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
                ServerConfig::builder().with_client_cert_verifier(verifier.context("verify clients' certificates")?)
            }
        };
        let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("read {}", key.display()))?;
        let mut config = builder
            .with_single_cert(certificates(certificate)?, private)
            .with_context(|| format!("use the certificate in {}", certificate.display()))?;
        config.alpn_protocols = match port {
            Port::Grpc => vec![b"h2".to_vec()],
            Port::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(match settings.tls {
            TlsMode::Off => Self::Off,
            TlsMode::Optional => Self::Optional(acceptor),
            TlsMode::Required => Self::Required(acceptor),
        })
    }

    /// Opens a connection: reads its first byte, and shakes hands where it is TLS.
    pub(super) async fn open(&self, stream: TcpStream) -> Result<Wire, String> {
        let acceptor = match self {
            Self::Off => return Ok(Wire::Plain(stream)),
            Self::Optional(acceptor) | Self::Required(acceptor) => acceptor,
        };
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1..) if first[0] == HANDSHAKE => {
                let stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
                Ok(Wire::Tls(Box::new(stream)))
            }
            Ok(1..) if matches!(self, Self::Optional(_)) => Ok(Wire::Plain(stream)),
            Ok(1..) => Err("plaintext where TLS is required".to_owned()),
            Ok(_) => Err("closed at once".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.with_context(|| format!("read {}", path.display()))
}

/// A connection, encrypted or not.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
