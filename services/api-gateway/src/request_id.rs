//! Every request has an id: taken from `X-Request-Id` or made, put on the span, the answer and the error body.

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use crate::state::AppState;

static HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Error bodies are ours and small.
const LARGEST_PROBLEM: usize = 256 << 10;

pub(crate) async fn attach(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(&HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|id| {
            !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        })
        .map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned);
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!("http", request_id = id, method = %request.method(), route);
    if let Some(parent) = request.headers().get(telemetry::context::HEADER).and_then(|value| value.to_str().ok()) {
        // A stranger decides neither what is sampled here nor into which trace it goes.
        if is_trusted(&state, &request) {
            telemetry::context::adopt(&span, parent);
        } else {
            telemetry::context::link(&span, parent);
        }
    }
    let response = next.run(request).instrument(span).await;
    let mut response = if is_problem(&response) { with_id(response, &id).await } else { response };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER.clone(), value);
    }
    response
}

fn is_trusted(state: &AppState, request: &Request) -> bool {
    let peer = request.extensions().get::<edge::Peer>().map(|peer| peer.socket.ip().to_canonical());
    peer.is_some_and(|peer| state.trusted_proxies.iter().any(|network| network.contains(&peer)))
}

fn is_problem(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json")
}

async fn with_id(response: Response, id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, LARGEST_PROBLEM).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let Ok(serde_json::Value::Object(mut problem)) = serde_json::from_slice(&bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    problem.insert("request_id".to_owned(), id.into());
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(serde_json::Value::Object(problem).to_string()))
}
