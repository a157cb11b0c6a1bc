//! OTLP over HTTP: protobuf and JSON; errors are `google.rpc.Status` in the encoding of the request.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use edge::Peer;
use fault::{Fault, Kind};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use otlp::Signal;
use prost::Message as _;
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::Instrument as _;

use crate::frames;
use crate::inflate::unpack;
use crate::intake::{Taken, explain};
use crate::metrics::Protocol;
use crate::otlp_grpc::{BATCH_HEADER, Entrance, answer, request_span};
use crate::refusal;

/// A JSON document takes about so many times its size once it is read.
const JSON_GROWTH: usize = 4;

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// The OTLP paths.
pub fn routes() -> Router<Entrance> {
    Router::new().route("/v1/metrics", post(metrics)).route("/v1/logs", post(logs)).route("/v1/traces", post(traces))
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

async fn traces(headers: HeaderMap) -> Response {
    let status = tonic::Status::unimplemented("traces are not taken yet; send metrics and logs");
    let encoding = Encoding::of(&headers).unwrap_or(Encoding::Protobuf);
    body(encoding, StatusCode::NOT_IMPLEMENTED, error_body(encoding, &status))
}

async fn export(entrance: &Entrance, signal: Signal, peer: &Peer, request: Request<Body>) -> Response {
    let Some(encoding) = Encoding::of(request.headers()) else {
        let text = "content-type must be application/x-protobuf or application/json\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    };
    let span = request_span(signal, Protocol::OtlpHttp, request.headers());
    let outcome = take(entrance, signal, encoding, peer, request).instrument(span).await;
    entrance.count(signal, Protocol::OtlpHttp, &outcome);
    match outcome {
        Ok(taken) => body(encoding, StatusCode::OK, success(signal, encoding, &taken)),
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
    let sender = entrance.policy.sender(request.headers(), peer.client).await?;
    let (head, content) = request.into_parts();
    let packing = frames::packing(&head.headers, "content-encoding")?;
    let declared = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > entrance.sizes.message as u64) {
        return Err(refusal::too_large("message", entrance.sizes.message));
    }
    let mut hold = entrance.admission.begin();
    let content = frames::whole(content, entrance.sizes.message, &mut hold).await?;
    let mut content = unpack(content, packing, entrance.sizes.unpacked, &mut hold).await?;
    if encoding == Encoding::Json {
        hold.grow(content.len() * JSON_GROWTH)?;
        content = from_json(signal, &content)?;
    }
    let batch = head.headers.get(BATCH_HEADER).and_then(|value| value.to_str().ok());
    entrance.intake.otlp(signal, content, &sender, batch, hold).await
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        match kind.split(';').next().unwrap_or_default().trim() {
            kind if kind.eq_ignore_ascii_case("application/x-protobuf") => Some(Self::Protobuf),
            kind if kind.eq_ignore_ascii_case("application/protobuf") => Some(Self::Protobuf),
            kind if kind.eq_ignore_ascii_case("application/json") => Some(Self::Json),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }
}

fn from_json(signal: Signal, content: &[u8]) -> Result<Bytes, Fault> {
    fn read<T: DeserializeOwned + prost::Message>(content: &[u8]) -> Result<Bytes, Fault> {
        let request: T = serde_json::from_slice(content)
            .map_err(|error| Fault::invalid("message_malformed", format!("the JSON is no OTLP request: {error}")))?;
        Ok(request.encode_to_vec().into())
    }
    match signal {
        Signal::Metrics => read::<ExportMetricsServiceRequest>(content),
        Signal::Logs => read::<ExportLogsServiceRequest>(content),
    }
}

fn success(signal: Signal, encoding: Encoding, taken: &Taken) -> Vec<u8> {
    if encoding == Encoding::Protobuf {
        return answer(signal, taken);
    }
    let rejected = taken.refused.total();
    let answer = match signal {
        _ if rejected == 0 => json!({}),
        Signal::Metrics => json!({"partialSuccess": {
            "rejectedDataPoints": rejected.to_string(), "errorMessage": explain(&taken.refused)}}),
        Signal::Logs => json!({"partialSuccess": {
            "rejectedLogRecords": rejected.to_string(), "errorMessage": explain(&taken.refused)}}),
    };
    answer.to_string().into_bytes()
}

fn refuse(encoding: Encoding, fault: Fault) -> Response {
    let code = match fault.kind() {
        _ if fault.code() == "encoding_unknown" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        // A common client gives up on both of these.
        Kind::Internal | Kind::Limited => StatusCode::SERVICE_UNAVAILABLE,
        _ => fault.status(),
    };
    let delay = fault.retry_delay();
    let status = refusal::status(fault);
    let mut response = body(encoding, code, error_body(encoding, &status));
    if code == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = delay.map_or(1, |delay| delay.as_secs().max(1));
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// `google.rpc.Status`.
fn error_body(encoding: Encoding, status: &tonic::Status) -> Vec<u8> {
    #[derive(prost::Message)]
    struct Plain {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    let code = i32::from(status.code());
    match encoding {
        Encoding::Json => json!({"code": code, "message": status.message()}).to_string().into_bytes(),
        // The details of a fault are the whole status already.
        Encoding::Protobuf if !status.details().is_empty() => status.details().to_vec(),
        Encoding::Protobuf => Plain { code, message: status.message().to_owned() }.encode_to_vec(),
    }
}

fn body(encoding: Encoding, code: StatusCode, content: Vec<u8>) -> Response {
    let mut response = (code, content).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, encoding.content_type());
    response
}
