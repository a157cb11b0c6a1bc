//! The public ports: connections, their limits and their ends.

mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use lifecycle::CancellationToken;
use rand::Rng as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::metrics::{Metrics, Opening, Port};

pub use tls::Tls;
use tls::Wire;

/// From the connection's first byte to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection that has asked for nothing by then is told to go.
const FIRST_REQUEST: Duration = Duration::from_secs(60);
/// How long what runs on a connection may go on after it was told to end.
const FAREWELL: Duration = Duration::from_secs(60);
/// The same while the process stops, within its deadline.
const LAST_FAREWELL: Duration = Duration::from_secs(5);
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// A peer that vanished is noticed after this and [`PONG_WITHIN`].
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);
const STREAMS: u32 = 512;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const FRAME: u32 = 256 << 10;
const HEADER_LIST: u32 = 32 << 10;

/// What a request may know of its connection.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// Cancelled when the connection has lived long enough: streams on it end.
    pub aged: CancellationToken,
}

/// One public port.
pub struct Listener {
    pub port: Port,
    pub tcp: TcpListener,
    pub tls: Tls,
    pub router: Router,
    pub connections: usize,
    pub max_age: Duration,
    pub metrics: Metrics,
    pub stopping: CancellationToken,
}

impl Listener {
    /// Serves until the process stops, then until the last connection has ended.
    ///
    /// # Errors
    /// None; the signature is a task's.
    pub async fn run(self) -> anyhow::Result<()> {
        let room = Arc::new(Semaphore::new(self.connections));
        let tasks = TaskTracker::new();
        let listener = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                accepted = listener.tcp.accept() => accepted,
                () = listener.stopping.cancelled() => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most likely there are no descriptors left; the next attempt would fail as fast.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                listener.metrics.opened(listener.port, Opening::TooMany);
                continue;
            };
            let listener = Arc::clone(&listener);
            tasks.spawn(async move {
                let open = listener.metrics.connections(listener.port);
                open.inc();
                listener.connection(stream, address).await;
                open.dec();
                drop(permit);
            });
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        // Only the answer's latency suffers without it.
        let _ = stream.set_nodelay(true);
        let opened = tokio::select! {
            opened = tokio::time::timeout(HANDSHAKE, self.tls.open(stream)) => opened,
            () = self.stopping.cancelled() => return,
        };
        let wire = match opened.map_err(|_| "nothing came in time".to_owned()) {
            Ok(Ok(wire)) => wire,
            Ok(Err(error)) | Err(error) => {
                self.metrics.opened(self.port, Opening::Failed);
                tracing::debug!(%address, error, "a connection failed before its first request");
                return;
            }
        };
        self.metrics.opened(self.port, if wire.is_tls() { Opening::Tls } else { Opening::Plain });
        self.serve(wire, address).await;
    }

    async fn serve(&self, wire: Wire, address: SocketAddr) {
        let peer = Peer { address, aged: CancellationToken::new() };
        let used = Arc::new(AtomicBool::new(false));
        let service = {
            let (router, peer, used) = (self.router.clone(), peer.clone(), Arc::clone(&used));
            hyper::service::service_fn(move |request: Request<Incoming>| {
                used.store(true, Ordering::Relaxed);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer.clone());
                router.clone().oneshot(request)
            })
        };
        let builder = self.builder();
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(wire), service));
        let age = self.max_age.mul_f64(rand::rng().random_range(0.9..1.1));
        let outcome = tokio::select! {
            outcome = connection.as_mut() => Some(outcome),
            () = self.stopping.cancelled() => None,
            () = tokio::time::sleep(age) => None,
            () = unused(&used) => None,
        };
        let outcome = match outcome {
            Some(outcome) => Some(outcome),
            None => {
                connection.as_mut().graceful_shutdown();
                if !self.stopping.is_cancelled() {
                    peer.aged.cancel();
                }
                tokio::select! {
                    outcome = connection => Some(outcome),
                    () = self.farewell() => None,
                }
            }
        };
        match outcome {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%address, %error, "a connection ended with an error"),
            None => tracing::warn!(%address, "a connection did not end in time and was cut off"),
        }
    }

    /// Resolves when a connection that was told to end has had time enough.
    async fn farewell(&self) {
        let last = async {
            self.stopping.cancelled().await;
            tokio::time::sleep(LAST_FAREWELL).await;
        };
        // No answer until then is an answer, too.
        let _ = tokio::time::timeout(FAREWELL, last).await;
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(HEADER_LIST);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
        match self.port {
            Port::Grpc => builder.http2_only(),
            Port::Http => builder,
        }
    }
}

/// Resolves when nothing was asked for too long after the beginning; never when something was.
async fn unused(used: &AtomicBool) {
    tokio::time::sleep(FIRST_REQUEST).await;
    if used.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Binds a public port.
///
/// # Errors
/// It is taken, or not ours to take.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("bind the public address {address}"))
}
