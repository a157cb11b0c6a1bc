//! Live streams: a WebSocket request goes to ws-fanout as it is, and its bytes after it.

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fault::Fault;
use hyper_util::rt::TokioIo;
use lifecycle::CancellationToken;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::state::AppState;

/// The way to ws-fanout.
pub(crate) struct Live {
    fanout: Url,
    streams: TaskTracker,
    stopping: CancellationToken,
}

impl Live {
    pub(crate) fn new(fanout: Url, stopping: CancellationToken) -> Self {
        Self { fanout, streams: TaskTracker::new(), stopping }
    }

    /// Waits until every stream that was passed through has ended.
    pub(crate) async fn finish(&self) {
        self.streams.close();
        self.streams.wait().await;
    }

    /// Passes `request` on; a refusal of ws-fanout comes back as it is.
    async fn pass(&self, mut request: Request) -> anyhow::Result<Response> {
        let host = self.fanout.host_str().context("read the host of ws-fanout")?.to_owned();
        let port = self.fanout.port_or_known_default().context("read the port of ws-fanout")?;
        let stream = TcpStream::connect((host.as_str(), port)).await.context("connect to ws-fanout")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream))
            .await
            .context("speak HTTP with ws-fanout")?;
        let stopping = self.stopping.clone();
        self.streams.spawn(async move {
            tokio::select! {
                outcome = connection.with_upgrades() => {
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "connection to ws-fanout ended");
                    }
                }
                () = stopping.cancelled() => {}
            }
        });
        let browser = hyper::upgrade::on(&mut request);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse().context("keep the path")?;
        *request.uri_mut() = path;
        request.headers_mut().insert(header::HOST, host.parse().context("name the host")?);
        let mut response = sender.send_request(request).await.context("ask ws-fanout")?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let fanout = hyper::upgrade::on(&mut response);
            let stopping = self.stopping.clone();
            self.streams.spawn(async move {
                tokio::select! {
                    outcome = copy(browser, fanout) => {
                        if let Err(error) = outcome {
                            tracing::debug!(error = format!("{error:#}"), "live stream ended");
                        }
                    }
                    // ws-fanout drains its own sockets; here the bytes just stop.
                    () = stopping.cancelled() => {}
                }
            });
        }
        Ok(response.map(Body::new).into_response())
    }
}

async fn copy(browser: hyper::upgrade::OnUpgrade, fanout: hyper::upgrade::OnUpgrade) -> anyhow::Result<()> {
    let (browser, fanout) = tokio::try_join!(browser, fanout).context("upgrade both sides")?;
    tokio::io::copy_bidirectional(&mut TokioIo::new(browser), &mut TokioIo::new(fanout)).await.context("pass bytes")?;
    Ok(())
}

/// `GET /api/v1/ws/*`. ws-fanout verifies the token itself.
pub(crate) async fn websocket(State(state): State<AppState>, request: Request) -> Response {
    let is_upgrade =
        request.headers().get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !is_upgrade {
        return Fault::invalid("websocket_expected", "open this address as a WebSocket").into_response();
    }
    match state.live.pass(request).await {
        Ok(response) => response,
        Err(error) => {
            Fault::unavailable("live_unavailable", "live streams are away; try again shortly", error).into_response()
        }
    }
}
