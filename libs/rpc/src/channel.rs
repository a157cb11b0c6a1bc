//! The calling side: several connections to whatever replicas a name stands for, used in turn.
//!
//! Each connection resolves the name when it is made and begins at another address, so that they spread; servers end
//! connections after some minutes, so that new replicas get their share. A replica that cannot be reached costs a try at the
//! next one.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use http::{Request as HttpRequest, Response as HttpResponse, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Request, Status};
use tower::{Service, ServiceExt as _};

use crate::Identity;

/// How long any call may take. Searches bound themselves below it.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(15);
/// Connections to one service: with as many replicas or fewer, each of them hears from every caller.
const CONNECTIONS: usize = 4;
/// How long one address may take, TLS included; all together, [`CONNECT_WITHIN`].
const ADDRESS_WITHIN: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Lazily connected, self-healing connections to a service; cheap to clone.
pub type Channel = InterceptedService<Spread, TraceContext>;

/// Makes a channel to the service at `url` (`https://host:port`). Connects at the first call.
///
/// # Errors
/// A URL or a certificate that cannot be used.
pub fn channel(identity: &Identity, url: &str) -> anyhow::Result<Channel> {
    let target = Target::parse(url).with_context(|| format!("use the service address {url}"))?;
    connections(identity, target)
}

fn connections(identity: &Identity, target: Target) -> anyhow::Result<Channel> {
    identity.client()?;
    // The connector speaks TLS itself, with whatever certificate is current, so to tonic the rest is plain.
    let endpoint = Endpoint::from_shared(format!("http://{}", target.authority))
        .with_context(|| format!("use the service address {}", target.authority))?
        .connect_timeout(CONNECT_WITHIN)
        .timeout(CALL_DEADLINE)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    let first = begin();
    let connection = |number| {
        let begin = Arc::new(AtomicUsize::new(first.wrapping_add(number)));
        endpoint.connect_with_connector_lazy(Connector { target: target.clone(), identity: identity.clone(), begin })
    };
    let connections = (0..CONNECTIONS).map(connection).collect();
    Ok(InterceptedService::new(Spread { connections, next: Arc::default() }, TraceContext))
}

/// Callers begin at different addresses.
fn begin() -> usize {
    use std::hash::{BuildHasher as _, RandomState};
    usize::try_from(RandomState::new().hash_one(0) >> 33).unwrap_or_default()
}

/// Puts the user's bearer token on an outgoing request.
pub fn forward<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    // A token that is no header value verifies nowhere, so the callee's refusal is the right answer to it.
    if let Ok(value) = MetadataValue::try_from(format!("Bearer {token}")) {
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Several connections, used in turn.
#[derive(Clone)]
pub struct Spread {
    connections: Arc<[tonic::transport::Channel]>,
    next: Arc<AtomicUsize>,
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service<HttpRequest<Body>> for Spread {
    type Response = HttpResponse<Body>;
    type Error = tonic::transport::Error;
    type Future = Answer<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Each call waits for the connection whose turn it is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        Box::pin(self.connections[turn].clone().oneshot(request))
    }
}

#[derive(Clone)]
struct Target {
    authority: String,
    addresses: Addresses,
    name: ServerName<'static>,
}

#[derive(Clone)]
enum Addresses {
    /// Looked up for each connection.
    Of(String, u16),
    /// A name server of a test's own would be no better.
    #[cfg(test)]
    Fixed(Vec<SocketAddr>),
}

impl Addresses {
    async fn look_up(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let mut addresses: Vec<SocketAddr> = match self {
            Self::Of(host, port) => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                found.with_context(|| format!("look up {host}"))?.collect()
            }
            #[cfg(test)]
            Self::Fixed(addresses) => addresses.clone(),
        };
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }
}

impl Target {
    fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().context("read the URL")?;
        anyhow::ensure!(uri.scheme_str() == Some("https"), "write https://host:port");
        let authority = uri.authority().context("write https://host:port")?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).context("read the host")?;
        let port = authority.port_u16().unwrap_or(443);
        Ok(Self { authority: authority.to_string(), addresses: Addresses::Of(host, port), name })
    }
}

/// Why nothing could be connected to. Only the text: who logs the status of a call shows all that is behind it, and the stack
/// of an error that is no bug helps nobody, and costs a hundred megabytes to write.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreachable(String);

/// Connects to the first of the target's addresses that answers, from `begin` on.
#[derive(Clone)]
struct Connector {
    target: Target,
    identity: Identity,
    begin: Arc<AtomicUsize>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = Unreachable;
    type Future = Answer<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let connected = connector.connect().await;
            connected.map(TokioIo::new).map_err(|error| Unreachable(format!("{error:#}")))
        })
    }
}

impl Connector {
    async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let addresses = self.target.addresses.look_up().await?;
        let mut last = anyhow::anyhow!("{} has no address", self.target.authority);
        for _ in 0..addresses.len() {
            let begin = self.begin.load(Ordering::Relaxed);
            let address = addresses[begin % addresses.len()];
            match tokio::time::timeout(ADDRESS_WITHIN, self.reach(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error.context(format!("connect to {address}")),
                Err(_) => last = anyhow::anyhow!("{address} does not answer within {ADDRESS_WITHIN:?}"),
            }
            // The next try, also after the time for all of them is over, begins elsewhere.
            self.begin.store(begin.wrapping_add(1), Ordering::Relaxed);
        }
        Err(last)
    }

    async fn reach(&self, address: SocketAddr) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await.context("open a connection")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let tls = TlsConnector::from(self.identity.client()?);
        tls.connect(self.target.name.clone(), stream).await.context("agree on TLS")
    }
}

/// Adds the trace context of the current span to each call.
#[derive(Clone, Copy, Debug)]
pub struct TraceContext;

impl Interceptor for TraceContext {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = telemetry::context::current().and_then(|text| MetadataValue::try_from(text).ok()) {
            request.metadata_mut().insert(telemetry::context::HEADER, value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests;
