//! Live streams: a WebSocket request goes to ws-fanout as it is, and its bytes after it.

mod frames;

use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use lifecycle::CancellationToken;
use rpc::Identity;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use url::Url;

use frames::Frames;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// ws-fanout answers when the stream is placed; it waits for nobody.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may take for its farewell.
const FAREWELL: Duration = Duration::from_secs(1);

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// The way to ws-fanout.
pub(crate) struct Live {
    fanout: Url,
    identity: Identity,
    streams: TaskTracker,
    stopping: CancellationToken,
}

impl Live {
    pub(crate) fn new(fanout: Url, identity: Identity, stopping: CancellationToken) -> Self {
        Self { fanout, identity, streams: TaskTracker::new(), stopping }
    }

    /// Waits until every stream that was passed through has ended.
    pub(crate) async fn finish(&self) {
        self.streams.close();
        self.streams.wait().await;
    }

    /// Passes `request` on; a refusal of ws-fanout comes back as it is.
    pub(crate) async fn pass(&self, mut request: Request) -> anyhow::Result<Response> {
        let connection = timeout(CONNECT_WITHIN, self.connect()).await.context("connect to ws-fanout")??;
        let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(connection))
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
        let host = self.fanout.host_str().context("read the host of ws-fanout")?;
        request.headers_mut().insert(header::HOST, host.parse().context("name the host")?);
        let asked = timeout(ANSWER_WITHIN, sender.send_request(request)).await.context("wait for ws-fanout")?;
        let mut response = asked.context("ask ws-fanout")?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let fanout = hyper::upgrade::on(&mut response);
            let stopping = self.stopping.clone();
            self.streams.spawn(async move {
                if let Err(error) = carry(browser, fanout, stopping).await {
                    tracing::debug!(error = format!("{error:#}"), "live stream ended");
                }
            });
        }
        Ok(response.map(Body::new).into_response())
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Connection>> {
        let host = self.fanout.host_str().context("read the host of ws-fanout")?.to_owned();
        let port = self.fanout.port_or_known_default().context("read the port of ws-fanout")?;
        let stream = TcpStream::connect((host.as_str(), port)).await.context("connect to ws-fanout")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        if self.fanout.scheme() != "https" {
            return Ok(Box::new(stream));
        }
        let mut tls = self.identity.client()?.as_ref().clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = host.try_into().context("read the host of ws-fanout")?;
        let stream =
            TlsConnector::from(std::sync::Arc::new(tls)).connect(name, stream).await.context("agree on TLS")?;
        Ok(Box::new(stream))
    }
}

/// Carries bytes both ways until a side ends, or until this process stops: then the browser is told, so that it opens the
/// stream again at once, elsewhere.
async fn carry(browser: OnUpgrade, fanout: OnUpgrade, stopping: CancellationToken) -> anyhow::Result<()> {
    let upgraded = async { tokio::try_join!(browser, fanout).context("upgrade both sides") };
    let Some(upgraded) = stopping.run_until_cancelled(upgraded).await else { return Ok(()) };
    let (browser, fanout) = upgraded?;
    let (mut from_browser, mut to_browser) = tokio::io::split(TokioIo::new(browser));
    let (mut from_fanout, mut to_fanout) = tokio::io::split(TokioIo::new(fanout));
    let mut frames = Frames::default();
    let outward = down(&mut from_fanout, &mut to_browser, &mut frames, &stopping);
    let outcome = tokio::select! {
        outcome = outward => outcome,
        outcome = tokio::io::copy(&mut from_browser, &mut to_fanout) => outcome.map(drop),
    };
    if stopping.is_cancelled() && frames.are_whole() {
        let _ = timeout(FAREWELL, to_browser.write_all(&frames::going_away())).await;
    }
    let _ = timeout(FAREWELL, to_browser.shutdown()).await;
    outcome.context("pass bytes")
}

/// From ws-fanout to the browser. When the process stops it goes on to the end of a frame, so that a farewell fits behind it.
async fn down(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    frames: &mut Frames,
    stopping: &CancellationToken,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer);
        let read = if frames.are_whole() {
            match stopping.run_until_cancelled(read).await {
                Some(read) => read?,
                None => return Ok(()),
            }
        } else {
            // The rest of a frame is on its way; a peer that hangs is not waited for.
            tokio::select! {
                read = read => read?,
                () = async { stopping.cancelled().await; tokio::time::sleep(FAREWELL).await } => return Ok(()),
            }
        };
        if read == 0 {
            return Ok(());
        }
        frames.pass(&buffer[..read]);
        to.write_all(&buffer[..read]).await?;
    }
}
