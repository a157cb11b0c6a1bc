//! Answers over HTTP, in the encoding of the request.

use axum::response::{IntoResponse as _, Response};
use fault::{Fault, Kind};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use otlp::Signal;
use prost::Message as _;
use serde_json::json;

use crate::intake::{Taken, explain};
use crate::otlp_grpc::answer;
use crate::refusal;

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        match kind.split(';').next().unwrap_or_default().trim() {
            kind if kind.eq_ignore_ascii_case("application/x-protobuf") => Some(Self::Protobuf),
            kind if kind.eq_ignore_ascii_case("application/protobuf") => Some(Self::Protobuf),
            kind if kind.eq_ignore_ascii_case("application/json") => Some(Self::Json),
            _ => None,
        }
    }

    /// That of the request, or the one that people can read.
    pub(super) fn of_answer(headers: &HeaderMap) -> Self {
        Self::of(headers).unwrap_or(Self::Json)
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }
}

/// The request was taken, perhaps without some of its items.
pub(super) fn success(signal: Signal, encoding: Encoding, taken: &Taken) -> Response {
    let content = match encoding {
        Encoding::Protobuf => answer(signal, taken),
        Encoding::Json => {
            let (rejected, text) = (taken.refused.total(), explain(taken));
            let field = match signal {
                Signal::Metrics => "rejectedDataPoints",
                Signal::Logs => "rejectedLogRecords",
            };
            let answer = match rejected {
                _ if text.is_empty() => json!({}),
                0 => json!({"partialSuccess": {"errorMessage": text}}),
                _ => json!({"partialSuccess": {field: rejected.to_string(), "errorMessage": text}}),
            };
            answer.to_string().into_bytes()
        }
    };
    body(encoding, StatusCode::OK, content)
}

/// The request was not taken.
pub(super) fn refuse(encoding: Encoding, fault: Fault) -> Response {
    let unknown = fault.code() == "encoding_unknown";
    let code = match fault.kind() {
        _ if unknown => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        // A common client gives up on both of these.
        Kind::Internal | Kind::Limited => StatusCode::SERVICE_UNAVAILABLE,
        _ => fault.status(),
    };
    let delay = fault.retry_delay();
    let mut response = error(encoding, code, &refusal::status(fault));
    let headers = response.headers_mut();
    if code == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = delay.map_or(1, |delay| delay.as_secs().max(1));
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if unknown {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, zstd"));
    }
    response
}

/// `google.rpc.Status`.
pub(super) fn error(encoding: Encoding, code: StatusCode, status: &tonic::Status) -> Response {
    #[derive(prost::Message)]
    struct Plain {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    let number = i32::from(status.code());
    let content = match encoding {
        Encoding::Json => json!({"code": number, "message": status.message()}).to_string().into_bytes(),
        // The details of a fault are the whole status already.
        Encoding::Protobuf if !status.details().is_empty() => status.details().to_vec(),
        Encoding::Protobuf => Plain { code: number, message: status.message().to_owned() }.encode_to_vec(),
    };
    body(encoding, code, content)
}

fn body(encoding: Encoding, code: StatusCode, content: Vec<u8>) -> Response {
    let mut response = (code, content).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, encoding.content_type());
    response
}
