//! What the metrics store answers, in the API's own shape.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use fault::{Fault, Kind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::instant;
use crate::metrics_store::Refusal;

/// Bytes of an answer that is read here, which takes a few times as many.
pub(crate) const LARGEST: usize = 16 << 20;

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

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Found,
}

/// A vector or a matrix; or a scalar or string, which is one point without labels.
#[derive(Deserialize)]
#[serde(untagged)]
enum Found {
    Pair(Pair),
    Series(Vec<Stored>),
}

#[derive(Deserialize)]
struct Stored {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    value: Option<Pair>,
    #[serde(default)]
    values: Vec<Pair>,
}

/// `[<unix seconds>, "<value>"]`
#[derive(Deserialize)]
struct Pair(f64, String);

impl Pair {
    fn point(&self) -> Option<Point> {
        let time = Duration::try_from_secs_f64(self.0).ok()?;
        let value: f64 = self.1.parse().ok()?;
        let time = instant::rfc3339(u64::try_from(time.as_millis()).ok()? * 1_000_000);
        Some(Point { time, value: value.is_finite().then_some(value) })
    }
}

impl From<Stored> for Series {
    fn from(stored: Stored) -> Self {
        let points = stored.value.iter().chain(&stored.values).filter_map(Pair::point).collect();
        Self { labels: stored.metric, points }
    }
}

/// The answer in `body`, written series by series as the client takes it.
pub(crate) fn respond(body: &[u8]) -> Result<Response, Fault> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| Fault::internal(anyhow::Error::new(error).context("read the metrics store's answer")))?;
    let series: Vec<Series> = match answer.data.result {
        Found::Series(series) => series.into_iter().map(Series::from).collect(),
        Found::Pair(pair) => vec![Series { labels: BTreeMap::new(), points: pair.point().into_iter().collect() }],
    };
    let mut before = "{\"items\":[";
    let pieces = series.into_iter().map(move |series| {
        let text = serde_json::to_string(&series).map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(Bytes::from(format!("{}{text}", std::mem::replace(&mut before, ","))))
    });
    // The beginning is due also where there is no series.
    let mut pieces = pieces.peekable();
    let begin = if pieces.peek().is_none() { "{\"items\":[" } else { "" };
    let end = std::iter::once_with(|| Ok(Bytes::from_static(b"]}")));
    let all = std::iter::once(Ok(Bytes::from_static(begin.as_bytes()))).chain(pieces).chain(end);
    let body = Body::from_stream(futures::stream::iter(all));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// How many series a query of the form `count(...)` counted.
pub(crate) fn count(body: &[u8]) -> Option<u64> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    match answer.data.result {
        Found::Series(series) => Some(match series.first() {
            Some(series) => series.value.as_ref()?.1.parse().ok()?,
            None => 0,
        }),
        Found::Pair(_) => None,
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal.status.as_u16() {
            400 | 422 => Self::invalid("invalid_query", refusal.message),
            429 => Self::new(Kind::Limited, "too_many_queries", refusal.message).retry_after(Duration::from_secs(5)),
            503 => {
                Self::new(Kind::Unavailable, "metrics_unavailable", refusal.message).retry_after(Duration::from_secs(1))
            }
            _ => Self::internal(anyhow::anyhow!(refusal.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::{Value, json};

    use super::*;

    async fn shown(result: &Value) -> Value {
        let body = json!({"status": "success", "data": {"resultType": "any", "result": result}});
        let response = respond(body.to_string().as_bytes()).unwrap();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn every_kind_of_answer_becomes_series_of_points() {
        let vector = json!([
            {"metric": {"__name__": "up", "host_name": "a"}, "value": [1_700_000_000, "1"]},
            {"metric": {"host_name": "b"}, "value": [1_700_000_000.5, "NaN"]}]);
        let first = json!({"time": "2023-11-14T22:13:20Z", "value": 1.0});
        let expected = json!({"items": [
            {"labels": {"__name__": "up", "host_name": "a"}, "points": [first]},
            {"labels": {"host_name": "b"}, "points": [{"time": "2023-11-14T22:13:20.5Z", "value": null}]}]});
        assert_eq!(shown(&vector).await, expected);
        let matrix = json!([{"metric": {}, "values": [[1_700_000_000, "1"], [1_700_000_001, "2"]]}]);
        assert_eq!(shown(&matrix).await["items"][0]["points"][1]["value"], 2.0);
        assert_eq!(shown(&json!([1_700_000_000, "1"])).await, json!({"items": [{"labels": {}, "points": [first]}]}));
        assert_eq!(shown(&json!([])).await, json!({"items": []}));
    }

    #[test]
    fn the_stores_reason_reaches_the_caller() {
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, "bad_data", "unexpected `)`");
        let fault = Fault::from(refusal);
        assert_eq!((fault.code(), fault.detail()), ("invalid_query", "unexpected `)`"));
    }
}
