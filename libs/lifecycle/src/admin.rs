//! `/livez`, `/readyz` and `/metrics`. Neither health answer touches the network: flags are kept by background tasks.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::process::Process;

/// A connection that sends no whole request for so long is ended: also one that was kept open by a scraper that is gone.
const HEADERS_WITHIN: Duration = Duration::from_secs(90);
/// More wait in the system's own queue.
const MOST_CONNECTIONS: usize = 128;
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// The admin server: first up, last down.
pub(crate) struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(listen: SocketAddr, process: Process) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("bind the admin address {listen}"))?;
        let address = listener.local_addr().context("read the admin address")?;
        let stop = CancellationToken::new();
        let router = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(process);
        #[expect(clippy::disallowed_methods, reason = "outlives the supervised tasks; `stop` awaits it")]
        let task = tokio::spawn(serve(listener, router, stop.clone()));
        Ok(Self { address, stop, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // A scraper that holds its connection open must not hold the process.
        let _ = tokio::time::timeout(Duration::from_millis(500), self.task).await;
    }
}

/// Until it is told to stop, and then until what was asked is answered.
async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let service = TowerToHyperService::new(router.clone());
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                let stop = stop.clone();
                connections.spawn(async move {
                    let mut connection = std::pin::pin!(connection);
                    let outcome = tokio::select! {
                        outcome = connection.as_mut() => outcome,
                        () = stop.cancelled() => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    };
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "a connection to the admin server ended with an error");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin server cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn readyz(State(process): State<Process>) -> Response {
    let missing = process.missing();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(serde_json::json!({ "ready": missing.is_empty(), "missing": missing }))).into_response()
}

async fn metrics(State(process): State<Process>) -> Response {
    match process.encode_metrics() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
