//! The called side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, Response};
use lifecycle::{CancellationToken, Process};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::channel::CALL_DEADLINE;
use crate::{Identity, callers, incoming};

/// How long callers may take to let go of their connections once the last call was answered. Most need a round trip; one
/// that hangs, or whose host is gone, would hold the process until its deadline.
const FAREWELL: Duration = Duration::from_secs(3);
/// After this time a connection is ended, calls finished: its caller resolves the name again and may find new replicas. Each
/// process adds a part of it at random, so that they do not all come back at once.
const CONNECTION_AGE: Duration = Duration::from_secs(3 * 60);

/// Serves `routes` as `service` on `listen` until the process stops, with `grpc.health.v1` beside them.
///
/// Gives the bound address, which tells the port where `listen` asked for port 0.
///
/// # Errors
/// An address that cannot be bound, or certificates that cannot be used.
pub async fn serve(
    process: &Process,
    service: &'static str,
    identity: &Identity,
    listen: SocketAddr,
    routes: Routes,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("bind the gRPC address {listen}"))?;
    let address = listener.local_addr().context("read the gRPC address")?;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let calls = Calls::default();
    identity.server()?;
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .max_connection_age(connection_age())
        .max_connection_age_grace(CALL_DEADLINE + FAREWELL)
        .layer(Admission { service, calls: calls.clone() })
        .add_routes(routes)
        .add_service(health_service);
    let stopping = process.stopping();
    let (ready, connections) = mpsc::channel(1);
    process.spawn("grpc accept", incoming::accept(listener, identity.clone(), ready, stopping.clone()));
    process.spawn("grpc", async move {
        let connections = ReceiverStream::new(connections);
        let serving = server.serve_with_incoming_shutdown(connections, stopping.clone().cancelled_owned());
        tokio::select! {
            served = serving => served.context("serve gRPC"),
            () = farewell(&stopping, &calls) => {
                tracing::warn!("a caller did not let go of its connection; it is cut off");
                Ok(())
            }
        }
    });
    let watched = process.clone();
    process.spawn("grpc health", async move {
        let stopping = watched.stopping();
        loop {
            let status = if watched.missing().is_empty() {
                tonic_health::ServingStatus::Serving
            } else {
                tonic_health::ServingStatus::NotServing
            };
            health.set_service_status("", status).await;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = stopping.cancelled() => break,
            }
        }
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        Ok(())
    });
    Ok(address)
}

fn connection_age() -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let share = u32::try_from(RandomState::new().hash_one(0) % 1_000).unwrap_or_default();
    CONNECTION_AGE + CONNECTION_AGE * share / 1_000
}

/// Resolves when the process stops, no call is under way, and callers have had their time.
async fn farewell(stopping: &CancellationToken, calls: &Calls) {
    stopping.cancelled().await;
    loop {
        calls.none().await;
        tokio::time::sleep(FAREWELL).await;
        if calls.are_none() {
            return;
        }
    }
}

/// How many calls are under way. Clones share it.
#[derive(Clone, Default)]
struct Calls(Arc<watch::Sender<usize>>);

impl Calls {
    /// Counts a call until what this returns is dropped.
    fn begin(&self) -> Call {
        self.0.send_modify(|calls| *calls += 1);
        Call(self.clone())
    }

    fn are_none(&self) -> bool {
        *self.0.borrow() == 0
    }

    async fn none(&self) {
        // The sender is our own, so this can only end with what is waited for.
        let _ = self.0.subscribe().wait_for(|calls| *calls == 0).await;
    }
}

struct Call(Calls);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.0.send_modify(|calls| *calls -= 1);
    }
}

/// Lets in whom the table lists, and puts each call in a span that continues the caller's trace.
#[derive(Clone)]
struct Admission {
    service: &'static str,
    calls: Calls,
}

impl<S> Layer<S> for Admission {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Admitted { inner, service: self.service, calls: self.calls.clone() }
    }
}

#[derive(Clone)]
struct Admitted<S> {
    inner: S,
    service: &'static str,
    calls: Calls,
}

impl<S, B, R> Service<Request<B>> for Admitted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let caller = caller(&request);
        let admitted =
            caller.as_deref().is_some_and(|name| callers::may_call(self.service, name, request.uri().path()));
        if !admitted {
            tracing::warn!(?caller, path = request.uri().path(), "call refused: the caller is not on the list");
            let refusal = Status::permission_denied("this service does not take calls from your certificate");
            return Box::pin(std::future::ready(Ok(refusal.into_http())));
        }
        let span = tracing::info_span!("grpc", path = request.uri().path(), caller);
        if let Some(parent) = request.headers().get(telemetry::context::HEADER).and_then(|value| value.to_str().ok()) {
            telemetry::context::adopt(&span, parent);
        }
        let call = self.calls.begin();
        let answering = self.inner.call(request).instrument(span);
        Box::pin(async move {
            let _under_way = call;
            answering.await
        })
    }
}

fn caller<B>(request: &Request<B>) -> Option<String> {
    let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>()?;
    let certificates = connection.peer_certs()?;
    callers::name_of(certificates.first()?)
}
