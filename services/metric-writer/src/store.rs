//! VictoriaMetrics over HTTP: writing, and asking. Every wait has an end, and every answer a bound.

mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use serde::Deserialize;
use url::Url;

pub(crate) use status::{DROPPED, Status};

/// How long a question that is no write may take.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer to a question.
const LARGEST_ANSWER: usize = 8 << 20;
/// Bytes of an answer that says what is wrong.
const LARGEST_REASON: usize = 4 << 10;
const LONGEST_LOCATION: usize = 200;

/// The metrics store.
#[derive(Clone)]
pub(crate) struct Store {
    http: reqwest::Client,
    base: Url,
    write_timeout: Duration,
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The same request may pass later.
    #[error("{0}")]
    Away(String),
    /// The same request never will.
    #[error("the store refuses it with {status}: {text}")]
    Refused { status: u16, text: String },
}

impl WriteError {
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// A smaller request may pass.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused { status: 413, .. })
    }
}

/// One series of an instant query: its labels and its value, as the store wrote it.
pub(crate) type Row = (BTreeMap<String, String>, String);

#[derive(Deserialize)]
struct Answer {
    data: Vector,
}

#[derive(Deserialize)]
struct Vector {
    result: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

impl Store {
    pub(crate) fn new(mut base: Url, write_timeout: Duration) -> anyhow::Result<Self> {
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .no_proxy()
            // What is sent elsewhere is sent without its body, and whatever answers there has stored nothing.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("build the client of the metrics store")?;
        Ok(Self { http, base, write_timeout })
    }

    /// Writes a request made by [`crate::remote_write::Requests`].
    ///
    /// # Errors
    /// Only what the request itself may be to blame for is refused: a missing password is "away", since no sample may
    /// become a dead letter for it. A server that is no store at all may refuse as well, which the caller finds out.
    pub(crate) async fn write(&self, body: Bytes) -> Result<(), WriteError> {
        let url = self.base.join("api/v1/write").map_err(|error| WriteError::Away(error.to_string()))?;
        let request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .timeout(self.write_timeout)
            .body(body);
        let response = request.send().await.map_err(|error| WriteError::Away(reason(&error)))?;
        let status = response.status();
        if status.is_success() {
            return taken(response).await.map_err(WriteError::Away);
        }
        if status.is_redirection() {
            return Err(WriteError::Away(elsewhere(&response)));
        }
        let text = excerpt(response).await;
        match status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(WriteError::Refused { status: status.as_u16(), text })
            }
            _ => Err(WriteError::Away(format!("the metrics store answers {status}: {text}"))),
        }
    }

    /// Writes lines of Prometheus's text format, at the store's own time where they have none.
    pub(crate) async fn import(&self, lines: String) -> anyhow::Result<()> {
        let url = self.base.join("api/v1/import/prometheus")?;
        let response = self.http.post(url).timeout(ASK_WITHIN).body(lines).send().await.map_err(unreachable)?;
        let status = response.status();
        if !status.is_success() {
            bail!("the metrics store answers {status}: {}", excerpt(response).await);
        }
        taken(response).await.map_err(anyhow::Error::msg)
    }

    /// What the store says about itself.
    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        let url = self.base.join("metrics")?;
        let response = self.http.get(url).timeout(ASK_WITHIN).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            bail!("the metrics store's own metrics answer {}", response.status());
        }
        Ok(Status::read(&String::from_utf8_lossy(&body(response, LARGEST_ANSWER).await?)))
    }

    /// An instant query at a Unix time in seconds, or at the store's own.
    pub(crate) async fn query(&self, query: &str, at: Option<f64>) -> anyhow::Result<Vec<Row>> {
        let url = self.base.join("api/v1/query")?;
        let mut form = vec![("query", query.to_owned()), ("nocache", "1".to_owned())];
        form.extend(at.map(|at| ("time", at.to_string())));
        let response = self.http.post(url).form(&form).timeout(ASK_WITHIN).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            bail!("the metrics store answers a query with {}", response.status());
        }
        let answer = body(response, LARGEST_ANSWER).await?;
        let answer: Answer = serde_json::from_slice(&answer).context("read the answer to a query")?;
        Ok(answer.data.result.into_iter().map(|row| (row.metric, row.value.1)).collect())
    }
}

/// Whether a success is that of a store, which has nothing to say about a write. A proxy's page or a default site has.
async fn taken(mut response: reqwest::Response) -> Result<(), String> {
    if response.status() == StatusCode::NO_CONTENT {
        return Ok(());
    }
    match response.chunk().await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(format!(
            "what answers a write with {} and a text is no metrics store (is SIGHTLINE_METRICS_URL right?): {}",
            response.status(),
            excerpt(response).await
        )),
        Err(error) => Err(reason(&error)),
    }
}

fn elsewhere(response: &reqwest::Response) -> String {
    let location = response.headers().get(LOCATION).and_then(|place| place.to_str().ok()).unwrap_or("nowhere");
    let location: String = location.chars().take(LONGEST_LOCATION).collect();
    format!(
        "what answers instead of the metrics store sends us to {location} with {}: set SIGHTLINE_METRICS_URL to the store itself",
        response.status()
    )
}

async fn body(mut response: reqwest::Response, most: usize) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > most {
            bail!("the metrics store's answer has more than {most} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The beginning of what the store says.
async fn excerpt(mut response: reqwest::Response) -> String {
    let mut text = Vec::new();
    while text.len() < LARGEST_REASON
        && let Ok(Some(chunk)) = response.chunk().await
    {
        text.extend_from_slice(&chunk[..chunk.len().min(LARGEST_REASON)]);
    }
    String::from_utf8_lossy(&text).trim().chars().take(300).collect()
}

fn unreachable(error: reqwest::Error) -> anyhow::Error {
    anyhow::anyhow!(reason(&error))
}

/// The innermost cause, without the URL, which may hold a password.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "the metrics store does not answer in time".to_owned();
    }
    let mut innermost = None;
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        innermost = Some(cause.to_string());
        next = cause.source();
    }
    innermost.map_or_else(
        || "the metrics store's answer cannot be read".to_owned(),
        |cause| format!("the metrics store cannot be reached: {cause}"),
    )
}
