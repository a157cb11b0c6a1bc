//! OTLP over HTTP: protobuf and JSON. Whatever is asked of this port is answered in the encoding in which it was asked, errors
//! as `google.rpc.Status`, with a sentence that helps.

mod answers;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use edge::Peer;
use fault::Fault;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use otlp::{BadJson, Signal, Unknown};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument as _;

use crate::admission::Hold;
use crate::frames;
use crate::inflate::unpack;
use crate::intake::Taken;
use crate::metrics::Protocol;
use crate::otlp_grpc::{BATCH_HEADER, Entrance, TRACES, request_span};
use crate::refusal::{self, Why};
use answers::{Encoding, error, refuse, success};

/// Protobuf has at most so many times the bytes of the JSON that it was written as.
const JSON_GROWTH: usize = 4;
/// Reading more JSON than that takes long enough to disturb the other connections of the thread.
const JSON_INLINE: usize = 32 << 10;

/// What is said to gRPC.
const GRPC: &str = "this port takes OTLP over HTTP; gRPC has a port of its own, 4317 unless it was set otherwise";

/// Everything on the HTTP port. `origins` are the web pages that may send from a browser; `*` is all of them.
pub fn routes(origins: &[HeaderValue]) -> Router<Entrance> {
    let router = Router::new()
        .route("/v1/metrics", post(metrics))
        .route("/v1/logs", post(logs))
        .route("/v1/traces", post(traces))
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method);
    if origins.is_empty() { router } else { router.layer(cors(origins)) }
}

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let any = origins.iter().any(|origin| origin == "*");
    let allowed = if any { AllowOrigin::any() } else { AllowOrigin::list(origins.iter().cloned()) };
    let headers = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        HeaderName::from_static(BATCH_HEADER),
        HeaderName::from_static(telemetry::context::HEADER),
    ];
    CorsLayer::new().allow_origin(allowed).allow_methods([Method::POST]).allow_headers(headers)
}

async fn metrics(
    State(entrance): State<Entrance>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    export(&entrance, Signal::Metrics, &peer, request).await
}

async fn logs(State(entrance): State<Entrance>, Extension(peer): Extension<Peer>, request: Request<Body>) -> Response {
    export(&entrance, Signal::Logs, &peer, request).await
}

async fn traces(
    State(entrance): State<Entrance>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    entrance.refusals.note(Why::NotTaken, peer.client, request.uri().path(), TRACES);
    error(Encoding::of_answer(request.headers()), StatusCode::NOT_IMPLEMENTED, &tonic::Status::unimplemented(TRACES))
}

/// No such path.
async fn nowhere(
    State(entrance): State<Entrance>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    let path = request.uri().path();
    if frames::is_grpc(request.headers()) {
        entrance.refusals.note(Why::UnknownPath, peer.client, path, GRPC);
        return tonic::Status::unimplemented(GRPC).into_http();
    }
    let shown = &path[..path.floor_char_boundary(100)];
    let lower = path.to_ascii_lowercase();
    let right = match () {
        () if lower.contains("log") => "POST /v1/logs",
        () if lower.contains("metric") => "POST /v1/metrics",
        () => "POST /v1/metrics or POST /v1/logs",
    };
    let text =
        format!("nothing is at {shown}; send OTLP with {right} (an exporter's endpoint is often the part before /v1)");
    entrance.refusals.note(Why::UnknownPath, peer.client, path, &text);
    error(Encoding::of_answer(request.headers()), StatusCode::NOT_FOUND, &tonic::Status::not_found(text))
}

/// A path that is right, with another method.
async fn other_method(
    State(entrance): State<Entrance>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    let path = request.uri().path();
    let text = format!("send OTLP with POST {path}");
    entrance.refusals.note(Why::HttpMethod, peer.client, path, &text);
    let status = tonic::Status::unimplemented(text);
    let mut response = error(Encoding::of_answer(request.headers()), StatusCode::METHOD_NOT_ALLOWED, &status);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn export(entrance: &Entrance, signal: Signal, peer: &Peer, request: Request<Body>) -> Response {
    let Some(encoding) = Encoding::of(request.headers()) else {
        let text = "content-type must be application/x-protobuf or application/json";
        entrance.refusals.note(Why::Encoding, peer.client, request.uri().path(), text);
        let status = tonic::Status::invalid_argument(text);
        return error(Encoding::Json, StatusCode::UNSUPPORTED_MEDIA_TYPE, &status);
    };
    let span = request_span(signal, Protocol::OtlpHttp, request.headers());
    let path = request.uri().path().to_owned();
    let outcome = take(entrance, signal, encoding, peer, request).instrument(span).await;
    entrance.count(signal, Protocol::OtlpHttp, peer, &path, &outcome);
    match outcome {
        Ok(taken) => success(signal, encoding, &taken),
        Err(fault) => refuse(encoding, fault),
    }
}

async fn take(
    entrance: &Entrance,
    signal: Signal,
    encoding: Encoding,
    peer: &Peer,
    request: Request<Body>,
) -> Result<Taken, Fault> {
    let sender = entrance.policy.sender(request.headers(), peer).await?;
    let (head, content) = request.into_parts();
    let packing = frames::packing(&head.headers, "content-encoding")?;
    let declared = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > entrance.sizes.message as u64) {
        return Err(refusal::too_large("message", entrance.sizes.message));
    }
    let mut hold = entrance.admission.begin();
    let content = frames::whole(content, entrance.sizes.message, &sender, &mut hold).await?;
    let content = unpack(content, packing, entrance.sizes.unpacked, &mut hold).await?;
    let batch = head.headers.get(BATCH_HEADER).and_then(|value| value.to_str().ok());
    if encoding == Encoding::Protobuf {
        return entrance.intake.otlp(signal, content, &sender, batch, hold).await;
    }
    let (content, unknown) = from_json(entrance, signal, content, &mut hold).await?;
    let mut taken = entrance.intake.otlp(signal, content, &sender, batch, hold).await?;
    entrance.intake.left_out.unknown(&sender, signal.into(), &unknown);
    taken.warning = remark(signal, &unknown, taken.items + taken.refused.total() == 0);
    Ok(taken)
}

/// What the sender of JSON is told about fields that OTLP does not know.
fn remark(signal: Signal, unknown: &Unknown, nothing_else: bool) -> Option<String> {
    let named = unknown.first.join(", ");
    let more = unknown.count.saturating_sub(u64::try_from(unknown.first.len()).unwrap_or_default());
    let and = if more == 0 { String::new() } else { format!(" and {more} more") };
    let (others, path) = match signal {
        Signal::Metrics => ("resourcelogs", "/v1/logs"),
        Signal::Logs => ("resourcemetrics", "/v1/metrics"),
    };
    let misplaced = unknown.first.iter().find(|field| field.replace('_', "").eq_ignore_ascii_case(others));
    match misplaced {
        _ if unknown.count == 0 => None,
        Some(field) => Some(format!("{field} was passed over: that belongs to {path}")),
        None if nothing_else => {
            Some(format!("nothing was in the request but fields that OTLP does not know: {named}{and}"))
        }
        None => Some(format!("fields that OTLP does not know were passed over: {named}{and}")),
    }
}

/// Writes JSON as protobuf. `hold` has room for the JSON and has it for the protobuf afterwards.
async fn from_json(
    entrance: &Entrance,
    signal: Signal,
    content: Bytes,
    hold: &mut Hold,
) -> Result<(Bytes, Unknown), Fault> {
    let most = entrance.sizes.unpacked;
    let reserved = content.len().saturating_mul(JSON_GROWTH).min(most);
    hold.grow(reserved)?;
    let length = content.len();
    let read = move || otlp::from_json(&content, signal, most);
    let read = if length <= JSON_INLINE { read() } else { entrance.intake.heavy.run(read).await? };
    let read = read.map_err(|bad| match bad {
        BadJson::TooLarge => refusal::too_large("request as protobuf", most),
        BadJson::Wrong { .. } => Fault::invalid("message_malformed", format!("the JSON is no OTLP request: {bad}")),
    })?;
    hold.shrink((reserved + length).saturating_sub(read.request.len()));
    Ok((read.request.into(), read.unknown))
}
