//! VictoriaMetrics over HTTP: writing, and asking whether it is still the same process.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::Deserialize;
use url::Url;

/// How long a question that is no write may take.
const ASK_WITHIN: Duration = Duration::from_secs(5);

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
            .build()
            .context("build the client of the metrics store")?;
        Ok(Self { http, base, write_timeout })
    }

    /// Writes a request made by [`crate::remote_write::bodies`].
    ///
    /// # Errors
    /// Only what the request itself is to blame for is refused: a wrong URL or a missing password is "away", since no
    /// sample may become a dead letter for it.
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
            return Ok(());
        }
        let text = excerpt(response).await;
        match status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(WriteError::Refused { status: status.as_u16(), text })
            }
            _ => Err(WriteError::Away(format!("the metrics store answers {status}: {text}"))),
        }
    }

    /// When the store's process started, in Unix seconds; `None` when it does not say.
    pub(crate) async fn started(&self) -> anyhow::Result<Option<f64>> {
        let url = self.base.join("metrics")?;
        let response =
            self.http.get(url).timeout(ASK_WITHIN).send().await.map_err(|error| anyhow::anyhow!(reason(&error)))?;
        if !response.status().is_success() {
            bail!("the metrics store's own metrics answer {}", response.status());
        }
        let text = response.text().await.map_err(|error| anyhow::anyhow!(reason(&error)))?;
        Ok(start_time(&text))
    }

    /// An instant query at a Unix time in seconds.
    pub(crate) async fn query(&self, query: &str, at: f64) -> anyhow::Result<Vec<Row>> {
        let url = self.base.join("api/v1/query")?;
        let time = at.to_string();
        let request =
            self.http.post(url).form(&[("query", query), ("time", &time), ("nocache", "1")]).timeout(ASK_WITHIN);
        let response = request.send().await.map_err(|error| anyhow::anyhow!(reason(&error)))?;
        if !response.status().is_success() {
            bail!("the metrics store answers a query with {}", response.status());
        }
        let answer: Answer = response.json().await.context("read the answer to a query")?;
        Ok(answer.data.result.into_iter().map(|row| (row.metric, row.value.1)).collect())
    }
}

/// `process_start_time_seconds` of an exposition text.
fn start_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("process_start_time_seconds ")?.trim().parse().ok())
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

async fn excerpt(response: reqwest::Response) -> String {
    let text = response.text().await.unwrap_or_default();
    text.trim().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::start_time;

    #[test]
    fn the_start_time_is_found_among_other_metrics() {
        let text = "# HELP x\nprocess_start_time_seconds_total 1\nprocess_start_time_seconds 1763697600\nup 1\n";
        assert_eq!(start_time(text), Some(1_763_697_600.0));
        assert_eq!(start_time("up 1\n"), None);
    }
}
