//! `/livez`, `/readyz` and `/metrics`. Neither health answer touches the network: flags are kept by background tasks.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::process::Process;

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
        let stopped = stop.clone();
        #[expect(clippy::disallowed_methods, reason = "outlives the supervised tasks; `stop` awaits it")]
        let task = tokio::spawn(async move {
            let server = axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned());
            if let Err(error) = server.await {
                tracing::error!(%error, "admin server failed");
            }
        });
        Ok(Self { address, stop, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // A scraper that holds its connection open must not hold the process.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(500), self.task).await;
    }
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
