//! Metric queries in the API's own shape. `/prometheus` serves the same store in Prometheus's.

use std::collections::BTreeMap;

use authn::Permission;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fault::{Fault, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::body::Parameters;
use crate::instant;
use crate::metrics_store::Answer;
use crate::state::{AppState, Caller};

/// As Prometheus bounds it.
const MOST_POINTS: u64 = 11_000;

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
    /// For example `15s`; a step that gives about 250 points when left out
    step: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct QueryResult {
    items: Vec<Series>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Series {
    labels: BTreeMap<String, String>,
    /// Oldest first
    points: Vec<Point>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Point {
    time: String,
    /// Null where the value is not a number or infinite
    value: Option<f64>,
}

/// Evaluate a query at one moment. Needs `metrics:read`.
#[utoipa::path(get, path = "/api/v1/metrics/query", tag = "metrics", params(InstantParameters),
    responses((status = 200, body = QueryResult), (status = 400, description = "The query cannot be read")))]
pub(crate) async fn query(
    State(state): State<AppState>,
    Caller(caller): Caller,
    Parameters(parameters): Parameters<InstantParameters>,
) -> Result<Json<QueryResult>, Fault> {
    caller.require(Permission::MetricsRead)?;
    let now = instant::now();
    let time = parameters.time.as_deref().map_or(Ok(now), |text| instant::parse("time", text, now))?;
    let form = vec![("query".to_owned(), parameters.query), ("time".to_owned(), seconds(time))];
    series(state.metrics_store.ask(&caller.tenant, "query", form).await)
}

/// Evaluate a query over a range of time. Needs `metrics:read`.
#[utoipa::path(get, path = "/api/v1/metrics/query_range", tag = "metrics", params(RangeParameters),
    responses((status = 200, body = QueryResult), (status = 400, description = "The query cannot be read")))]
pub(crate) async fn query_range(
    State(state): State<AppState>,
    Caller(caller): Caller,
    Parameters(parameters): Parameters<RangeParameters>,
) -> Result<Json<QueryResult>, Fault> {
    caller.require(Permission::MetricsRead)?;
    let (from, to) = instant::range(parameters.from.as_deref(), parameters.to.as_deref())?;
    let span = (to - from) / 1_000_000;
    let step = match parameters.step.as_deref() {
        Some(text) => instant::millis("step", text)?,
        None => (span / 250).max(1_000),
    };
    if step == 0 || span / step > MOST_POINTS {
        return Err(Fault::field("step", format!("choose a step that gives at most {MOST_POINTS} points")));
    }
    let form = vec![
        ("query".to_owned(), parameters.query),
        ("start".to_owned(), seconds(from)),
        ("end".to_owned(), seconds(to)),
        ("step".to_owned(), format!("{step}ms")),
    ];
    series(state.metrics_store.ask(&caller.tenant, "query_range", form).await)
}

/// Unix seconds with milliseconds, as the store takes them.
fn seconds(unix_nano: u64) -> String {
    format!("{}.{:03}", unix_nano / 1_000_000_000, unix_nano / 1_000_000 % 1_000)
}

fn series(answer: Answer) -> Result<Json<QueryResult>, Fault> {
    if answer.status != StatusCode::OK {
        let detail = answer.body["error"].as_str().unwrap_or("the query failed").to_owned();
        return Err(match answer.status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Fault::invalid("invalid_query", detail),
            StatusCode::SERVICE_UNAVAILABLE => Fault::new(Kind::Unavailable, "metrics_unavailable", detail),
            _ => Fault::new(Kind::Internal, "internal", detail),
        });
    }
    let data = &answer.body["data"];
    let items = match (data["resultType"].as_str(), data["result"].as_array()) {
        (Some("vector" | "matrix"), Some(result)) => result.iter().map(one_series).collect(),
        // A scalar or a string is one point without labels.
        (Some(_), Some(_)) => {
            vec![Series { labels: BTreeMap::new(), points: point(&data["result"]).into_iter().collect() }]
        }
        _ => Vec::new(),
    };
    Ok(Json(QueryResult { items }))
}

fn one_series(result: &Value) -> Series {
    let labels = result["metric"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect();
    let points = match result["values"].as_array() {
        Some(values) => values.iter().filter_map(point).collect(),
        None => point(&result["value"]).into_iter().collect(),
    };
    Series { labels, points }
}

/// `[<unix seconds>, "<value>"]`
fn point(pair: &Value) -> Option<Point> {
    let time = std::time::Duration::try_from_secs_f64(pair.get(0)?.as_f64()?).ok()?;
    let value: f64 = pair.get(1)?.as_str()?.parse().ok()?;
    let time = instant::rfc3339(u64::try_from(time.as_millis()).ok()? * 1_000_000);
    Some(Point { time, value: value.is_finite().then_some(value) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_vector_becomes_series_of_one_point() {
        let body = json!({"status": "success", "data": {"resultType": "vector", "result": [
            {"metric": {"__name__": "up", "host_name": "a"}, "value": [1_700_000_000, "1"]},
            {"metric": {"host_name": "b"}, "value": [1_700_000_000, "NaN"]}]}});
        let Json(result) = series(Answer { status: StatusCode::OK, body }).unwrap();
        assert_eq!(result.items[0].labels["host_name"], "a");
        assert_eq!(result.items[0].points[0].time, "2023-11-14T22:13:20Z");
        assert_eq!(result.items[0].points[0].value, Some(1.0));
        assert_eq!(result.items[1].points[0].value, None);
    }

    #[test]
    fn the_stores_reason_reaches_the_caller() {
        let answer = Answer::error(StatusCode::BAD_REQUEST, "bad_data", "unexpected `)`");
        assert_eq!(series(answer).err().unwrap().code(), "invalid_query");
    }
}
