//! The Prometheus HTTP API, for Grafana, promtool and scripts (Prometheus documentation, "HTTP API").
//!
//! Errors have Prometheus's shape, not ours: its clients read no other.

use authn::Permission;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde_json::json;

use crate::metrics_store::Answer;
use crate::state::{AppState, Caller};

/// A form larger than this is no query.
const LARGEST_FORM: usize = 1 << 20;

pub(crate) fn router() -> Router<AppState> {
    let ask = |path: &'static str| -> MethodRouter<AppState> {
        let handler =
            move |State(state): State<AppState>, request: Request| async move { ask(&state, path, request).await };
        get(handler).post(handler)
    };
    Router::new()
        .route("/prometheus/api/v1/query", ask("query"))
        .route("/prometheus/api/v1/query_range", ask("query_range"))
        .route("/prometheus/api/v1/series", ask("series"))
        .route("/prometheus/api/v1/labels", ask("labels"))
        .route("/prometheus/api/v1/label/{name}/values", get(label_values))
        .route("/prometheus/api/v1/metadata", ask("metadata"))
        .route("/prometheus/api/v1/status/buildinfo", get(build_info))
}

async fn label_values(State(state): State<AppState>, Path(name): Path<String>, request: Request) -> Response {
    let valid = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    if !valid {
        let error = Answer::error(StatusCode::BAD_REQUEST, "bad_data", format!("`{name}` is not a label name"));
        return respond(error);
    }
    ask(&state, &format!("label/{name}/values"), request).await
}

async fn build_info(_: Caller) -> Json<serde_json::Value> {
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({ "status": "success", "data": { "version": version, "application": "sightline" } }))
}

async fn ask(state: &AppState, path: &str, request: Request) -> Response {
    match asked(state, path, request).await {
        Ok(answer) | Err(answer) => respond(answer),
    }
}

async fn asked(state: &AppState, path: &str, request: Request) -> Result<Answer, Answer> {
    let (mut parts, body) = request.into_parts();
    let Caller(caller) = Caller::from_request_parts(&mut parts, state).await.map_err(|fault| refusal(&fault))?;
    caller.require(Permission::MetricsRead).map_err(|fault| refusal(&fault))?;
    let mut parameters: Vec<(String, String)> = pairs(parts.uri.query().unwrap_or_default().as_bytes());
    if parts.method == Method::POST {
        let form = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !form.is_empty() && !form.starts_with("application/x-www-form-urlencoded") {
            let advice = "send parameters as application/x-www-form-urlencoded";
            return Err(Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_data", advice));
        }
        let bytes: Bytes = axum::body::to_bytes(body, LARGEST_FORM)
            .await
            .map_err(|_| Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "bad_data", "the form is larger than 1 MiB"))?;
        parameters.extend(pairs(&bytes));
    }
    Ok(state.metrics_store.ask(&caller.tenant, path, parameters).await)
}

fn pairs(encoded: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(encoded).into_owned().collect()
}

fn refusal(fault: &fault::Fault) -> Answer {
    let kind = match fault.status() {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        _ => "unavailable",
    };
    Answer::error(fault.status(), kind, fault.detail())
}

fn respond(answer: Answer) -> Response {
    (answer.status, Json(answer.body)).into_response()
}
