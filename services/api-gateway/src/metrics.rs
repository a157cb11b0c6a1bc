//! Every metric of the api-gateway.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Routes are our own patterns and statuses are a closed set, so both labels are bounded.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    route: String,
    status: u16,
}

#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Family<Labels, Counter>,
    seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            seconds: Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]),
        };
        registry.register(
            "sightline_api_gateway_requests",
            "Requests answered, by route and status",
            metrics.requests.clone(),
        );
        registry.register(
            "sightline_api_gateway_request_duration_seconds",
            "Time from a request's head to its answer's head",
            metrics.seconds.clone(),
        );
        metrics
    }
}

pub(crate) async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", |path| path.as_str()).to_owned();
    let begun = std::time::Instant::now();
    let response = next.run(request).await;
    metrics.seconds.observe(begun.elapsed().as_secs_f64());
    metrics.requests.get_or_create(&Labels { route, status: response.status().as_u16() }).inc();
    response
}
