//! Every metric of the api-gateway.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

telemetry::metrics! {
    /// Clones count into the same metrics.
    pub(crate) struct Metrics in "sightline_api_gateway" {
        /// Requests answered, by route and status
        requests: Counter by [route, status],
        /// Time from a request's head to its answer's head
        request_duration [Seconds]: Histogram = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0],
        /// Metric queries that were not answered in full, by the reason
        pub(crate) queries_refused: Counter by [reason],
        /// Answers of the metrics store that are under way
        pub(crate) queries_running: Gauge,
    }
}

pub(crate) async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", |path| word(path.as_str()));
    let begun = std::time::Instant::now();
    let response = next.run(request).await;
    metrics.request_duration.observe(begun.elapsed().as_secs_f64());
    metrics.requests.of([route, word(response.status().as_str())]).inc();
    response
}

/// One copy of each route and status for the life of the process: patterns of our own, and numbers below 1000.
fn word(text: &str) -> &'static str {
    static WORDS: LazyLock<Mutex<HashMap<String, &'static str>>> = LazyLock::new(Mutex::default);
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(word) = words.get(text) {
        return word;
    }
    let word: &'static str = Box::leak(text.to_owned().into_boxed_str());
    words.insert(text.to_owned(), word);
    word
}
