//! OTLP over gRPC.

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use edge::Peer;
use fault::Fault;
use http::{HeaderMap, Request, Version};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};
use otlp::Signal;
use prost::Message as _;
use tonic::Status;
use tracing::{Instrument as _, Span};

use crate::admission::Admission;
use crate::frames::{self, Frames, Sizes};
use crate::intake::{Intake, Taken, explain};
use crate::metrics::{Metrics, Outcome, Protocol};
use crate::refusal::{self, Refusals, Why};
use crate::sender::Policy;
use crate::visits::Visits;

/// What every protocol needs. Clones share it.
#[derive(Clone)]
pub struct Entrance {
    pub intake: Intake,
    pub policy: Policy,
    pub admission: Admission,
    pub metrics: Metrics,
    pub refusals: Refusals,
    pub visits: Visits,
    pub sizes: Sizes,
}

/// The header in which our agent numbers its batches.
pub const BATCH_HEADER: &str = "sightline-batch";

/// What is said of traces.
pub(crate) const TRACES: &str = "traces are not taken yet; send metrics and logs";

/// The OTLP services.
pub fn routes() -> Router<Entrance> {
    Router::new()
        .route("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", post(metrics))
        .route("/opentelemetry.proto.collector.logs.v1.LogsService/Export", post(logs))
        .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(traces))
}

async fn metrics(
    State(entrance): State<Entrance>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    entrance.export(Signal::Metrics, &peer, request).await
}

async fn logs(State(entrance): State<Entrance>, Extension(peer): Extension<Peer>, request: Request<Body>) -> Response {
    entrance.export(Signal::Logs, &peer, request).await
}

async fn traces(
    State(entrance): State<Entrance>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    entrance.refusals.note(Why::NotTaken, peer.client, request.uri().path(), TRACES);
    Status::unimplemented(TRACES).into_http()
}

/// No such method.
pub async fn nowhere(
    State(entrance): State<Entrance>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    let path = request.uri().path();
    let shown = &path[..path.floor_char_boundary(100)];
    let text = format!("there is no method {shown} here; OTLP metrics and logs and GoSight's streams are");
    entrance.refusals.note(Why::UnknownMethod, peer.client, path, &text);
    if !frames::is_grpc(request.headers()) {
        return frames::not_grpc();
    }
    Status::unimplemented(text).into_http()
}

/// Answers clients of HTTP/1.1, in which there is no gRPC: most likely they took this port for the other one.
pub async fn only_http2(
    State(entrance): State<Entrance>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
    next: Next,
) -> Response {
    if request.version() >= Version::HTTP_2 {
        return next.run(request).await;
    }
    entrance.refusals.note(Why::Encoding, peer.client, request.uri().path(), "HTTP/1.1 on the port of gRPC");
    frames::not_grpc()
}

impl Entrance {
    async fn export(&self, signal: Signal, peer: &Peer, request: Request<Body>) -> Response {
        if !frames::is_grpc(request.headers()) {
            self.refusals.note(Why::Encoding, peer.client, request.uri().path(), "this is the port of gRPC");
            return frames::not_grpc();
        }
        // Held until there is an answer: an agent that is sent away then loses least.
        let _export = self.visits.export(peer.socket);
        let span = request_span(signal, Protocol::OtlpGrpc, request.headers());
        let path = request.uri().path().to_owned();
        let outcome = self.take(signal, peer, request).instrument(span).await;
        self.count(signal, Protocol::OtlpGrpc, peer, &path, &outcome);
        if let Ok(Taken { agent_id: Some(agent), .. }) = &outcome {
            self.visits.exported(peer.socket, agent);
        }
        match outcome {
            Ok(taken) => frames::answer(&answer(signal, &taken)),
            Err(fault) => frames::refuse(fault),
        }
    }

    async fn take(&self, signal: Signal, peer: &Peer, request: Request<Body>) -> Result<Taken, Fault> {
        let sender = self.policy.sender(request.headers(), peer).await?;
        let batch = request.headers().get(BATCH_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let message = Frames::new(request, self.sizes, self.admission.clone(), sender.clone())?.only().await?;
        self.intake.otlp(signal, message.bytes, &sender, batch.as_deref(), message.hold).await
    }

    pub(crate) fn count(
        &self,
        signal: Signal,
        protocol: Protocol,
        peer: &Peer,
        path: &str,
        outcome: &Result<Taken, Fault>,
    ) {
        if let Err(fault) = outcome {
            self.refusals.note(Why::from(fault), peer.client, path, fault.detail());
        }
        let outcome = outcome.as_ref().err().map_or(Outcome::Accepted, refusal::outcome);
        self.metrics.request(signal.into(), protocol, outcome);
    }
}

/// What becomes of a request, within its sender's trace.
pub(crate) fn request_span(signal: Signal, protocol: Protocol, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!("ingest", ?signal, ?protocol);
    if let Some(parent) = headers.get(telemetry::context::HEADER).and_then(|value| value.to_str().ok()) {
        telemetry::context::adopt(&span, parent);
    }
    span
}

/// The answer to a request that was taken, perhaps without some of its items.
pub(crate) fn answer(signal: Signal, taken: &Taken) -> Vec<u8> {
    let rejected = i64::try_from(taken.refused.total()).unwrap_or(i64::MAX);
    let error_message = explain(taken);
    if error_message.is_empty() {
        // Nothing is set in either answer.
        return Vec::new();
    }
    match signal {
        Signal::Metrics => ExportMetricsServiceResponse {
            partial_success: Some(ExportMetricsPartialSuccess { rejected_data_points: rejected, error_message }),
        }
        .encode_to_vec(),
        Signal::Logs => ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess { rejected_log_records: rejected, error_message }),
        }
        .encode_to_vec(),
    }
}
