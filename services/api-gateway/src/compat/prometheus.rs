//! The Prometheus HTTP API, for Grafana, promtool and scripts (Prometheus documentation, "HTTP API").
//!
//! Errors have Prometheus's shape, not ours, whatever goes wrong below `/prometheus`: its clients read no other.

mod parameters;

use authn::Permission;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use model::label_name;
use serde_json::{Value, json};

use crate::body::{STALLED, stalled};
use crate::metrics_store::Refusal;
use crate::state::{AppState, Caller};
use parameters::Question;

/// A form larger than this is no query.
const LARGEST_FORM: usize = 1 << 20;
/// Grafana asks for nothing newer of the first that has everything served here: label values by series selectors came with
/// 2.24.
const SPEAKS: &str = "2.47.0";

pub(crate) fn router() -> Router<AppState> {
    let ask = |question: Question| -> MethodRouter<AppState> {
        let handler = move |State(state): State<AppState>, request: Request| async move {
            answer(&state, question.path, question, request).await
        };
        get(handler).post(handler)
    };
    Router::new()
        .route("/api/v1/query", ask(parameters::INSTANT))
        .route("/api/v1/query_range", ask(parameters::RANGE))
        .route("/api/v1/series", ask(parameters::SERIES))
        .route("/api/v1/labels", ask(parameters::LABELS))
        .route("/api/v1/label/{name}/values", get(label_values))
        .route("/api/v1/metadata", get(metadata))
        .route("/api/v1/status/buildinfo", get(build_info))
        .fallback(missing)
        .method_not_allowed_fallback(not_allowed)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "status": "error", "errorType": self.kind, "error": self.message });
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

async fn label_values(
    State(state): State<AppState>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let name = parameters::unescape(&name);
    let name = if name == "__name__" { name } else { label_name(&name) };
    answer(&state, &format!("label/{name}/values"), parameters::LABEL_VALUES, request).await
}

/// Types and units are not kept yet; those that a store may keep, it keeps for all tenants together.
async fn metadata(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Refusal> {
    reader(&state, request.headers()).await?;
    Ok(Json(json!({ "status": "success", "data": {} })))
}

async fn build_info(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Refusal> {
    caller(&state, request.headers()).await?;
    let revision = concat!("sightline-", env!("CARGO_PKG_VERSION"));
    let data = json!({
        "version": SPEAKS, "revision": revision, "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
        "application": "sightline",
    });
    Ok(Json(json!({ "status": "success", "data": data })))
}

async fn missing(State(state): State<AppState>, request: Request) -> Result<Response, Refusal> {
    caller(&state, request.headers()).await?;
    Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", "this part of the Prometheus API is not served here"))
}

async fn not_allowed(State(state): State<AppState>, request: Request) -> Result<Response, Refusal> {
    caller(&state, request.headers()).await?;
    let message = "this route does not take this method";
    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "bad_data", message))
}

async fn answer(state: &AppState, path: &str, question: Question, request: Request) -> Result<Response, Refusal> {
    let caller = reader(state, request.headers()).await?;
    let parameters = question.read(pairs(request).await?)?;
    let answer = state.metrics_store.ask(&caller.0.scope(), path, parameters).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(answer)).into_response())
}

async fn caller(state: &AppState, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let verified = state.verifier.request(headers).await;
    verified.map(Caller).map_err(|fault| refusal(&fault))
}

async fn reader(state: &AppState, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let caller = caller(state, headers).await?;
    caller.may(Permission::MetricsRead).map_err(|fault| refusal(&fault))?;
    Ok(caller)
}

fn refusal(fault: &fault::Fault) -> Refusal {
    let (status, kind) = match (fault.status(), fault.code()) {
        // Whoever it is is known; an agent's token just opens nothing here.
        (_, "token_wrong_kind") | (StatusCode::FORBIDDEN, _) => (StatusCode::FORBIDDEN, "forbidden"),
        (StatusCode::UNAUTHORIZED, _) => (StatusCode::UNAUTHORIZED, "unauthorized"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    Refusal::new(status, kind, fault.detail())
}

/// The parameters of the URL and of the form.
async fn pairs(request: Request) -> Result<Vec<(String, String)>, Refusal> {
    let (parts, body) = request.into_parts();
    let mut pairs = decoded(parts.uri.query().unwrap_or_default().as_bytes());
    if parts.method == Method::POST {
        let kind = parts.headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.is_empty() && !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let advice = "send parameters as application/x-www-form-urlencoded";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_data", advice));
        }
        let bytes: Bytes = axum::body::to_bytes(body, LARGEST_FORM).await.map_err(|error| match stalled(&error) {
            Some(_) => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", STALLED),
            None => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "bad_data", "the form is larger than 1 MiB"),
        })?;
        pairs.extend(decoded(&bytes));
    }
    Ok(pairs)
}

fn decoded(encoded: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(encoded).into_owned().collect()
}
