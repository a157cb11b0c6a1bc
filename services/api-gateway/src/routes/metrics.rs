//! Metric queries in the API's own shape. `/prometheus` serves the same store in Prometheus's.

use authn::Permission;
use axum::extract::State;
use axum::response::Response;
use fault::Fault;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::answer::{self, QueryResult};
use crate::body::Parameters;
use crate::instant::{self, MOST_POINTS};
use crate::state::{AppState, Caller};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct InstantParameters {
    /// PromQL; dotted metric names such as `system.memory.total` work too
    query: String,
    /// Now when left out
    time: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RangeParameters {
    /// PromQL; dotted metric names such as `system.memory.total` work too
    query: String,
    /// An hour before `to` when left out
    from: Option<String>,
    /// Now when left out
    to: Option<String>,
    /// For example `15s`; a step that gives about 250 points when left out, and never one that gives more than 11,000
    step: Option<String>,
}

/// Evaluate a query at one moment. Needs `metrics:read`.
#[utoipa::path(get, path = "/api/v1/metrics/query", tag = "metrics", params(InstantParameters),
    responses((status = 200, body = QueryResult), (status = 429, description = "Too many queries at the same time")))]
pub(crate) async fn query(
    State(state): State<AppState>,
    caller: Caller,
    Parameters(parameters): Parameters<InstantParameters>,
) -> Result<Response, Fault> {
    let now = instant::now();
    let time = parameters.time.as_deref().map_or(Ok(now), |text| instant::parse("time", text, now))?;
    let form = vec![("query".to_owned(), parameters.query), ("time".to_owned(), seconds(time))];
    ask(&state, &caller, "query", form).await
}

/// Evaluate a query over a range of time. Needs `metrics:read`.
#[utoipa::path(get, path = "/api/v1/metrics/query_range", tag = "metrics", params(RangeParameters),
    responses((status = 200, body = QueryResult), (status = 429, description = "Too many queries at the same time")))]
pub(crate) async fn query_range(
    State(state): State<AppState>,
    caller: Caller,
    Parameters(parameters): Parameters<RangeParameters>,
) -> Result<Response, Fault> {
    let (from, to) = instant::range(parameters.from.as_deref(), parameters.to.as_deref())?;
    let span = (to - from) / 1_000_000;
    let step = match parameters.step.as_deref() {
        Some(text) => instant::millis("step", text)?,
        None => (span / 250).max(1_000),
    };
    if step == 0 || span as f64 / step as f64 > MOST_POINTS {
        return Err(Fault::field("step", format!("choose a step that gives at most {MOST_POINTS} points")));
    }
    let form = vec![
        ("query".to_owned(), parameters.query),
        ("start".to_owned(), seconds(from)),
        ("end".to_owned(), seconds(to)),
        ("step".to_owned(), format!("{step}ms")),
    ];
    ask(&state, &caller, "query_range", form).await
}

async fn ask(state: &AppState, caller: &Caller, path: &str, form: Vec<(String, String)>) -> Result<Response, Fault> {
    caller.may(Permission::MetricsRead)?;
    answer::respond(&state.metrics_store.read(&caller.0.scope(), path, form, answer::LARGEST).await?)
}

/// Unix seconds with milliseconds, as the store takes them.
fn seconds(unix_nano: u64) -> String {
    format!("{}.{:03}", unix_nano / 1_000_000_000, unix_nano / 1_000_000 % 1_000)
}
