//! Connections as they come in, after their TLS handshake with the certificate that is current.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::CancellationToken;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Identity;

/// A handshake takes a round trip or two; who takes longer holds a place that others need.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// At once. Callers are services: a whole cluster of them fits.
const HANDSHAKES: usize = 256;

pub(crate) type Connection = std::io::Result<TlsStream<TcpStream>>;

/// Accepts on `listener` until the process stops.
pub(crate) async fn accept(
    listener: TcpListener,
    identity: Identity,
    ready: mpsc::Sender<Connection>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let place = Arc::clone(&places).acquire_owned().await?;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return Ok(()),
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a caller who left already: neither is mended by trying at once.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (identity, ready) = (identity.clone(), ready.clone());
        handshakes.spawn(async move {
            let _place = place;
            match tokio::time::timeout(HANDSHAKE_WITHIN, handshake(stream, &identity)).await {
                // The server is gone only when the process stops.
                Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
                Ok(Err(error)) => tracing::debug!(error = format!("{error:#}"), "a caller could not agree on TLS"),
                Err(_) => tracing::debug!("a caller took too long to agree on TLS"),
            }
        });
    }
}

async fn handshake(stream: TcpStream, identity: &Identity) -> anyhow::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    Ok(TlsAcceptor::from(identity.server()?).accept(stream).await?)
}
