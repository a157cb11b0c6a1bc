//! A public port: its connections, their limits and their ends.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::{BoxError, Router};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use lifecycle::CancellationToken;
use rand::Rng as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::body::Watched;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::places::Places;
use crate::protocols::Protocols;
use crate::settings::Settings;
use crate::tls::Tls;
use crate::wire::{Stream, Wire};

/// From the connection's first byte to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection that has asked for nothing by then is told to go.
const FIRST_REQUEST: Duration = Duration::from_secs(60);
/// How long what runs on a connection may go on after it was told to end.
const FAREWELL: Duration = Duration::from_secs(60);
/// The same while the process stops, within its deadline.
const LAST_FAREWELL: Duration = Duration::from_secs(5);
/// A peer that vanished is noticed after this and [`PONG_WITHIN`].
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);
const STREAMS: u32 = 512;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const FRAME: u32 = 256 << 10;
const HEADER_LIST: u32 = 32 << 10;

/// One public port.
pub struct Listener {
    /// What its metrics and log lines call it.
    pub port: &'static str,
    pub protocols: Protocols,
    pub tcp: TcpListener,
    pub tls: Tls,
    pub router: Router,
    pub settings: Settings,
    pub metrics: Metrics,
    pub stopping: CancellationToken,
}

/// Why a connection was told to end.
#[derive(Debug, Clone, Copy)]
enum Told {
    Stopped,
    Aged,
    Unused,
}

impl Told {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Aged => "aged",
            Self::Unused => "unused",
        }
    }
}

impl Listener {
    /// Serves until the process stops, then until the last connection has ended.
    ///
    /// # Errors
    /// None; the signature is a task's.
    pub async fn run(self) -> anyhow::Result<()> {
        let settings = &self.settings;
        let places = Places::new(settings.connections, settings.connections_per_client, settings.proxies());
        let tasks = TaskTracker::new();
        let listener = Arc::new(self);
        tasks.spawn(Arc::clone(&listener).renew());
        loop {
            let accepted = tokio::select! {
                accepted = listener.tcp.accept() => accepted,
                () = listener.stopping.cancelled() => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most likely there are no descriptors left; the next attempt would fail as fast.
                    tracing::warn!(%error, port = listener.port, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let place = match places.take(address.ip()) {
                Ok(place) => place,
                Err(full) => {
                    listener.opened(full.as_str());
                    continue;
                }
            };
            let listener = Arc::clone(&listener);
            tasks.spawn(async move {
                let open = listener.metrics.connections.of([listener.port]);
                open.inc();
                listener.connection(stream, address).await;
                open.dec();
                drop(place);
            });
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    /// Looks for new certificates until the process stops.
    async fn renew(self: Arc<Self>) {
        let mut every = tokio::time::interval(self.settings.certificate_check.max(Duration::from_millis(1)));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.stopping.run_until_cancelled(every.tick()).await.is_some() {
            let tls = self.tls.clone();
            let Ok(refreshed) = tokio::task::spawn_blocking(move || tls.refresh()).await else { continue };
            let outcome = match refreshed {
                Ok(false) => continue,
                Ok(true) => {
                    tracing::info!(port = self.port, "new connections are shown the new certificate");
                    "renewed"
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        port = self.port,
                        "the new certificate cannot be used; the former one stays"
                    );
                    "unusable"
                }
            };
            self.metrics.certificates.of([self.port, outcome]).inc();
        }
    }

    fn opened(&self, how: &'static str) {
        self.metrics.opened.of([self.port, how]).inc();
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        // Only the answer's latency suffers without it.
        let _ = stream.set_nodelay(true);
        let opened = tokio::select! {
            opened = tokio::time::timeout(HANDSHAKE, self.tls.open(stream)) => opened,
            () = self.stopping.cancelled() => return,
        };
        match opened.unwrap_or_else(|_| Err("nothing came in time".to_owned())) {
            Ok(stream) => {
                self.opened(if stream.is_tls() { "tls" } else { "plain" });
                self.serve(stream, address).await;
            }
            Err(error) => {
                self.opened("failed");
                tracing::debug!(%address, error, "a connection failed before its first request");
            }
        }
    }

    async fn serve(&self, stream: Stream, address: SocketAddr) {
        let peer = Peer::new(address, stream.certificate().map(Arc::new));
        let (used, unread) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (linger, pause) = (self.settings.linger_bytes, self.settings.answer_pause);
        let io = TokioIo::new(Wire::new(stream, Arc::clone(&unread), linger, pause));
        let service = {
            let (router, peer, used) = (self.router.clone(), peer.clone(), Arc::clone(&used));
            let (proxies, pause) = (self.settings.proxies(), self.settings.body_pause);
            hyper::service::service_fn(move |request: Request<Incoming>| {
                used.store(true, Ordering::Relaxed);
                let client = proxies.client(peer.socket.ip(), request.headers());
                let mut request = Watched::of(request, pause, &unread).map(Body::new);
                request.extensions_mut().insert(Peer { client, ..peer.clone() });
                router.clone().oneshot(request)
            })
        };
        let builder = self.builder();
        match self.protocols {
            Protocols::Grpc => {
                let connection = std::pin::pin!(builder.serve_connection(io, service));
                self.drive(connection, |connection| connection.graceful_shutdown(), &peer, &used).await;
            }
            Protocols::Http => {
                let connection = std::pin::pin!(builder.serve_connection_with_upgrades(io, service));
                self.drive(connection, |connection| connection.graceful_shutdown(), &peer, &used).await;
            }
        }
    }

    /// Lets a connection run until it ends by itself or is told to.
    async fn drive<C: Future<Output = Result<(), BoxError>>>(
        &self,
        mut connection: Pin<&mut C>,
        tell: impl FnOnce(Pin<&mut C>),
        peer: &Peer,
        used: &AtomicBool,
    ) {
        let age = self.settings.connection_max_age.mul_f64(rand::rng().random_range(0.9..1.1));
        let told = tokio::select! {
            outcome = connection.as_mut() => return self.ended(peer, outcome, "closed"),
            () = self.stopping.cancelled() => Told::Stopped,
            () = unused(used) => Told::Unused,
            () = aged(age, peer) => Told::Aged,
        };
        tell(connection.as_mut());
        if matches!(told, Told::Aged) {
            peer.aged.cancel();
        }
        tokio::select! {
            outcome = connection => self.ended(peer, outcome, told.as_str()),
            () = self.farewell() => {
                self.metrics.ended.of([self.port, "cut_off"]).inc();
                tracing::warn!(address = %peer.socket, told = told.as_str(), "a connection did not end in time and was cut off");
            }
        }
    }

    fn ended(&self, peer: &Peer, outcome: Result<(), BoxError>, why: &'static str) {
        let why = match outcome {
            Ok(()) => why,
            Err(error) => {
                tracing::debug!(address = %peer.socket, %error, "a connection ended with an error");
                "error"
            }
        };
        self.metrics.ended.of([self.port, why]).inc();
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
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.settings.headers_within);
        builder
    }
}

/// Resolves when nothing was asked for too long after the beginning; never when something was.
async fn unused(used: &AtomicBool) {
    tokio::time::sleep(FIRST_REQUEST).await;
    if used.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the connection has lived long enough and nothing on it has to last.
async fn aged(age: Duration, peer: &Peer) {
    tokio::time::sleep(age).await;
    peer.nothing_lasts().await;
}

/// Binds a public port.
///
/// # Errors
/// It is taken, or not ours to take.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("bind the public address {address}"))
}
