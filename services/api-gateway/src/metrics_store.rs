//! The metrics store's Prometheus API, with the caller's tenant put on every question.

use std::time::Duration;

use anyhow::Context as _;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::promql;

/// More than any answer that a browser could draw; a larger one is refused instead of filling memory.
const LARGEST_ANSWER: usize = 64 << 20;

/// Client of the metrics store.
pub(crate) struct MetricsStore {
    http: reqwest::Client,
    base: Url,
    timeout: Duration,
}

/// An answer in the shape of the Prometheus HTTP API.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answer {
    /// An error in Prometheus's shape (Prometheus HTTP API, "Format overview").
    pub(crate) fn error(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        Self { status, body: json!({ "status": "error", "errorType": kind, "error": message.into() }) }
    }
}

#[derive(Deserialize)]
struct StoreError {
    error: String,
}

impl MetricsStore {
    pub(crate) fn new(base: Url, timeout: Duration) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .timeout(timeout)
            .no_proxy()
            .build()
            .context("build the metrics store client")?;
        Ok(Self { http, base, timeout })
    }

    /// Asks `path` (below `/api/v1/`) on behalf of `tenant`.
    ///
    /// What the client said under `extra_*` is dropped: repeated filters are OR-ed by the store and would open other
    /// tenants' data.
    pub(crate) async fn ask(&self, tenant: &str, path: &str, parameters: Vec<(String, String)>) -> Answer {
        let mut form: Vec<(String, String)> = parameters
            .into_iter()
            .filter(|(name, _)| !name.starts_with("extra_"))
            .map(|(name, value)| {
                let value = if name == "query" || name == "match[]" { promql::undot(&value) } else { value };
                (name, value)
            })
            .collect();
        form.push(("extra_filters[]".to_owned(), format!("{{tenant={}}}", Value::from(tenant))));
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path.split('/'));
        }
        match self.http.post(url).form(&form).send().await {
            Ok(response) => self.read(response).await,
            Err(error) if error.is_timeout() => self.timed_out(),
            Err(error) => away(&error),
        }
    }

    async fn read(&self, mut response: reqwest::Response) -> Answer {
        let status = response.status();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= LARGEST_ANSWER => body.extend_from_slice(&chunk),
                Ok(Some(_)) => {
                    let advice =
                        "the answer is larger than 64 MiB; choose fewer series, a shorter range or a larger step";
                    return Answer::error(StatusCode::UNPROCESSABLE_ENTITY, "execution", advice);
                }
                Ok(None) => break,
                Err(error) if error.is_timeout() => return self.timed_out(),
                Err(error) => return away(&error),
            }
        }
        if status.is_success() {
            return match serde_json::from_slice(&body) {
                Ok(body) => Answer { status: StatusCode::OK, body },
                Err(error) => {
                    tracing::error!(%error, "the metrics store's answer cannot be read");
                    Answer::error(
                        StatusCode::BAD_GATEWAY,
                        "internal",
                        "the metrics store answered with something else than JSON",
                    )
                }
            };
        }
        if status.is_server_error() && status != StatusCode::UNPROCESSABLE_ENTITY {
            tracing::warn!(status = status.as_u16(), "the metrics store failed");
            return unavailable();
        }
        let message = serde_json::from_slice::<StoreError>(&body)
            .map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |store| store.error);
        Answer::error(StatusCode::BAD_REQUEST, "bad_data", explain(&message))
    }

    fn timed_out(&self) -> Answer {
        let advice = format!("the query took longer than {:?}; narrow it", self.timeout);
        Answer::error(StatusCode::SERVICE_UNAVAILABLE, "timeout", advice)
    }
}

fn away(error: &reqwest::Error) -> Answer {
    tracing::warn!(error = %error.to_string(), "the metrics store cannot be reached");
    unavailable()
}

fn unavailable() -> Answer {
    Answer::error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the metrics store is away; try again shortly")
}

/// The store wraps its reason in where it happened, which names our filters; the reason is the last part.
fn explain(message: &str) -> String {
    let bounded: String = message.chars().take(2_000).collect();
    bounded.trim().to_owned()
}
