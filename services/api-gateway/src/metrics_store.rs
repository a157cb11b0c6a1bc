//! The metrics store's Prometheus API, with the caller's tenant put on every question.
//!
//! Answers pass through as they come, bounded in bytes; how many are under way is bounded for each tenant and for all.

mod fence;
mod places;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use authn::Scope;
use axum::body::Bytes;
use axum::http::StatusCode;
use futures::stream::{BoxStream, StreamExt as _};
use lifecycle::{CancellationToken, Ready};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use url::Url;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::promql;
use fence::Fence;
use places::{Place, Places};

/// See [`filter`].
const LOOK_AGAIN_SECONDS: u64 = 2;
/// Of what the store says about a query that it does not take.
const LARGEST_ERROR: usize = 64 << 10;
/// Bytes of a query, or of all selectors of one: what is written in the field's names becomes many times longer for the store.
const LONGEST_QUERY: usize = 16 << 10;

/// Client of the metrics store. Clones share its limits.
#[derive(Clone)]
pub(crate) struct MetricsStore {
    http: reqwest::Client,
    base: Url,
    timeout: Duration,
    largest_answer: u64,
    places: Arc<Places>,
    fence: Arc<Fence>,
    metrics: Metrics,
}

/// A question that was not answered, in the words of the Prometheus HTTP API ("Format overview").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// Prometheus's `errorType`.
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }

    pub(crate) fn bad_data(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_data", message)
    }
}

/// The body of an answer. It ends with an error where it is larger than allowed, so that nobody takes a part for the whole.
pub(crate) type Answer = BoxStream<'static, std::io::Result<Bytes>>;

#[derive(Deserialize)]
struct StoreError {
    error: String,
}

impl MetricsStore {
    pub(crate) fn new(config: &Config, metrics: Metrics) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .timeout(config.query_timeout)
            .no_proxy()
            .build()
            .context("build the metrics store client")?;
        Ok(Self {
            http,
            base: config.metrics_url.clone(),
            timeout: config.query_timeout,
            largest_answer: config.query_answer_max_bytes,
            places: Arc::new(Places::new(config.queries, config.queries_per_tenant)),
            fence: Arc::default(),
            metrics,
        })
    }

    /// Keeps asking whether the store honours the tenant's filter, and says so in `ready`.
    pub(crate) async fn watch(self, ready: Ready, stopping: CancellationToken) -> anyhow::Result<()> {
        fence::watch(&self, &ready, &stopping).await;
        Ok(())
    }

    /// Asks `path` (below `/api/v1/`) for what `scope` may see. `parameters` are those that the route knows: what a client
    /// says under `extra_*` must not be among them, since repeated filters are OR-ed by the store.
    pub(crate) async fn ask(
        &self,
        scope: &Scope,
        path: &str,
        parameters: Vec<(String, String)>,
    ) -> Result<Answer, Refusal> {
        let asked = |name: &str| name == "query" || name == "match[]";
        let bytes: usize = parameters.iter().filter(|(name, _)| asked(name)).map(|(_, value)| value.len()).sum();
        if bytes > LONGEST_QUERY {
            self.refused("query_too_long");
            let text = format!("the query has {bytes} bytes; {LONGEST_QUERY} are read, as by VictoriaMetrics itself");
            return Err(Refusal::bad_data(text));
        }
        fence::pass(self).await?;
        let place = self.places.take(scope.tenant()).await.inspect_err(|_| self.refused("too_many_queries"))?;
        let mut form: Vec<(String, String)> = parameters
            .into_iter()
            .filter(|(name, _)| !name.starts_with("extra_"))
            .map(|(name, value)| {
                let value = if asked(&name) { promql::stored(&value) } else { value };
                (name, value)
            })
            .collect();
        form.push(("extra_filters[]".to_owned(), filter(scope, SystemTime::now())));
        let response = self.send(path, &form).await?;
        if !response.status().is_success() {
            return Err(self.reason(response).await);
        }
        if response.content_length().is_some_and(|length| length > self.largest_answer) {
            self.refused("answer_too_large");
            return Err(self.too_large());
        }
        let mut answer = self.bounded(response, place);
        // What is too large at once is still refused with its reason; what becomes so later can only break off.
        match answer.next().await {
            Some(Ok(first)) => Ok(futures::stream::once(std::future::ready(Ok(first))).chain(answer).boxed()),
            Some(Err(error)) if error.get_ref().is_some_and(|error| error.is::<TooLarge>()) => Err(self.too_large()),
            Some(Err(error)) => Err(self.broke(&error)),
            None => Ok(answer),
        }
    }

    /// As [`MetricsStore::ask`], all of it, for whoever has to read it.
    pub(crate) async fn read(
        &self,
        scope: &Scope,
        path: &str,
        parameters: Vec<(String, String)>,
        largest: usize,
    ) -> Result<Vec<u8>, Refusal> {
        let mut answer = self.ask(scope, path, parameters).await?;
        let mut body = Vec::new();
        while let Some(piece) = answer.next().await {
            let piece = piece.map_err(|error| match error.get_ref() {
                Some(error) if error.is::<TooLarge>() => self.too_large(),
                _ => self.broke(&error),
            })?;
            if body.len() + piece.len() > largest {
                self.refused("answer_too_large");
                return Err(self.too_large());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    async fn send(&self, path: &str, form: &[(String, String)]) -> Result<reqwest::Response, Refusal> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path.split('/'));
        }
        match self.http.post(url).form(form).send().await {
            Ok(response) => Ok(response),
            Err(error) if error.is_timeout() => Err(self.timed_out()),
            Err(error) => {
                tracing::warn!(error = error.without_url().to_string(), "the metrics store cannot be reached");
                Err(self.away())
            }
        }
    }

    /// The answer's pieces, fetched by a task of its own: a client that takes nothing more, though its connection lives, must not
    /// keep its place or the store's connection. The time that a query has is for both.
    fn bounded(&self, response: reqwest::Response, place: Place) -> Answer {
        self.metrics.queries_running.inc();
        let under_way = UnderWay { _place: place, metrics: self.metrics.clone() };
        let (store, (pieces, taken)) = (self.clone(), mpsc::channel(1));
        let mut fetching = JoinSet::new();
        fetching.spawn(async move {
            let _held = under_way;
            let _ = tokio::time::timeout(store.timeout, store.fetch(response, &pieces)).await;
        });
        let next = |answer: Option<(mpsc::Receiver<Piece>, JoinSet<()>)>| async {
            let (mut taken, fetching) = answer?;
            match taken.recv().await {
                Some(Piece::Of(bytes)) => Some((Ok(bytes), Some((taken, fetching)))),
                Some(Piece::Broken(error)) => Some((Err(error), None)),
                Some(Piece::End) => None,
                None => Some((Err(std::io::ErrorKind::TimedOut.into()), None)),
            }
        };
        futures::stream::unfold(Some((taken, fetching)), next).fuse().boxed()
    }

    /// Ends when the client has taken the last piece, or left.
    async fn fetch(&self, response: reqwest::Response, pieces: &mpsc::Sender<Piece>) {
        let (mut response, mut length) = (response, 0);
        loop {
            let piece = match response.chunk().await {
                Ok(Some(bytes)) => {
                    length += bytes.len();
                    if u64::try_from(length).is_ok_and(|length| length > self.largest_answer) {
                        self.refused("answer_too_large");
                        Piece::Broken(std::io::Error::other(TooLarge))
                    } else {
                        Piece::Of(bytes)
                    }
                }
                Ok(None) => Piece::End,
                Err(error) => Piece::Broken(std::io::Error::other(error.without_url())),
            };
            let is_last = !matches!(piece, Piece::Of(_));
            if pieces.send(piece).await.is_err() || is_last {
                // Held until it was taken.
                let _ = pieces.reserve().await;
                return;
            }
        }
    }

    async fn reason(&self, mut response: reqwest::Response) -> Refusal {
        let status = response.status();
        let mut body = Vec::new();
        while let Ok(Some(piece)) = response.chunk().await {
            body.extend_from_slice(&piece);
            if body.len() > LARGEST_ERROR {
                break;
            }
        }
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), "the metrics store failed");
            return self.away();
        }
        let message = serde_json::from_slice::<StoreError>(&body)
            .map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |store| store.error);
        self.refused("invalid_query");
        Refusal::bad_data(explain(&message))
    }

    fn refused(&self, reason: &'static str) {
        self.metrics.queries_refused.of([reason]).inc();
    }

    fn timed_out(&self) -> Refusal {
        self.refused("timeout");
        let advice = format!("the query took longer than {:?}; narrow it", self.timeout);
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", advice)
    }

    fn too_large(&self) -> Refusal {
        let advice = "the answer is too large; choose fewer series, a shorter range or a larger step";
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "execution", advice)
    }

    fn broke(&self, error: &std::io::Error) -> Refusal {
        tracing::warn!(%error, "an answer of the metrics store broke off");
        self.away()
    }

    fn away(&self) -> Refusal {
        self.refused("unavailable");
        let advice = "the metrics store is away; try again shortly";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", advice)
    }
}

/// What follows in an answer. Without an end it is not whole.
enum Piece {
    Of(Bytes),
    Broken(std::io::Error),
    End,
}

/// An answer went over its limit.
#[derive(Debug, thiserror::Error)]
#[error("the answer is too large")]
struct TooLarge;

/// Counted as long as an answer is under way.
struct UnderWay {
    _place: Place,
    metrics: Metrics,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.metrics.queries_running.dec();
    }
}

/// What of the store `scope` may see, as a series selector.
///
/// VictoriaMetrics remembers for ten seconds which series it found for a set of filters, also that it found none: a name that was
/// asked for before its first sample would stay hidden for so long. A filter that every series passes and that is another one
/// every two seconds lets it look again.
fn filter(scope: &Scope, now: SystemTime) -> String {
    let moment = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / LOOK_AGAIN_SECONDS);
    let tenant = format!("tenant={},asked_at!=\"{moment}\"", serde_json::Value::from(scope.tenant()));
    let selector = scope.selector().to_string();
    match selector.trim_start_matches('{').trim_end_matches('}') {
        "" => format!("{{{tenant}}}"),
        more => format!("{{{tenant},{more}}}"),
    }
}

/// The store says where an error occurred before it says what is wrong, and names our filters there; the reason is what
/// follows the last of its own frames.
fn explain(message: &str) -> String {
    let reason = ["unable to parse query: ", "cannot parse query: ", "cannot execute query: ", "): "]
        .iter()
        .filter_map(|frame| message.rfind(frame).map(|at| &message[at + frame.len()..]))
        .min_by_key(|reason| reason.len())
        .unwrap_or(message);
    let reason = if reason.contains("extra_filters") || reason.contains("tenant=") {
        "the query cannot be read"
    } else {
        reason
    };
    reason.trim().chars().take(1_000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_cannot_write_its_way_out_of_its_filter() {
        let scope = Scope::tenant_wide("a\"} or {tenant=\"b");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        assert_eq!(filter(&scope, now), "{tenant=\"a\\\"} or {tenant=\\\"b\",asked_at!=\"4\"}");
        assert_eq!(filter(&Scope::tenant_wide("acme"), now), "{tenant=\"acme\",asked_at!=\"4\"}");
    }
}
