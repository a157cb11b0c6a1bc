//! The routes of the API, one file a plural noun, and the document that describes them.

mod agents;
mod alerts;
mod auth;
mod deliveries;
mod logs;
mod metrics;
mod processes;
mod prometheus;
mod receivers;
mod resources;
mod rules;
mod status;

use axum::extract::DefaultBodyLimit;
use axum::routing::any;
use axum::{Router, middleware};
use fault::{Fault, Kind};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::state::AppState;
use crate::{live, metrics as service_metrics, request_id};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sightline",
        description = "Times in answers are RFC 3339 in UTC; `from` and `to` take RFC 3339, Unix seconds or relative times such as `-15m`. \
            Lists answer `items` and `next`; pass `next` as `cursor`. Errors are `application/problem+json` with a stable `code`, \
            a `detail` that says what to do, `errors` for single fields, and the `request_id` that the logs carry."
    ),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        document.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// Everything that the gateway serves.
pub(crate) fn router(state: AppState, metrics: service_metrics::Metrics) -> Router {
    let (api, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(auth::keys))
        .routes(routes!(agents::issue_token))
        .routes(routes!(resources::list))
        .routes(routes!(resources::get))
        .routes(routes!(processes::list))
        .routes(routes!(metrics::query))
        .routes(routes!(metrics::query_range))
        .routes(routes!(logs::search))
        .routes(routes!(rules::list, rules::create))
        .routes(routes!(rules::get, rules::update, rules::delete))
        .routes(routes!(alerts::list))
        .routes(routes!(receivers::list, receivers::create))
        .routes(routes!(deliveries::list))
        .routes(routes!(status::get))
        .split_for_parts();
    Router::new()
        .merge(api)
        .merge(prometheus::router())
        .route("/api/v1/ws/{*stream}", any(live::websocket))
        .with_state(state)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .fallback(async || Fault::new(Kind::NotFound, "route_not_found", "there is no such route; /docs lists them"))
        .method_not_allowed_fallback(async || {
            let detail = "this route does not take this method; /docs lists what it takes";
            Fault::new(Kind::MethodNotAllowed, "method_not_allowed", detail)
        })
        .layer(DefaultBodyLimit::max(1 << 20))
        .layer(CatchPanicLayer::custom(|_panic| {
            axum::response::IntoResponse::into_response(Fault::internal(std::io::Error::other("a route panicked")))
        }))
        .layer(middleware::from_fn_with_state(metrics, service_metrics::observe))
        .layer(middleware::from_fn(request_id::attach))
}
