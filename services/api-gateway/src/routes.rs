//! The routes of the API, one file a plural noun.

mod agents;
mod alerts;
mod auth;
mod deliveries;
mod keys;
mod live;
mod logs;
mod metrics;
mod processes;
mod receivers;
mod resources;
mod rules;
mod status;
mod users;

use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use axum::{Router, middleware};
use fault::{Fault, Kind};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::state::AppState;
use crate::{compat, document, metrics as service_metrics, request_id};

/// Everything that the gateway serves.
///
/// # Errors
/// None that a test would not have met.
pub(crate) fn router(state: &AppState, metrics: service_metrics::Metrics) -> anyhow::Result<Router> {
    let (api, document) = api().split_for_parts();
    let document = document::finish(&document)?;
    let missing = async || Fault::new(Kind::NotFound, "route_not_found", "there is no such route; /docs lists them");
    let not_allowed = async || {
        let detail = "this route does not take this method; /docs lists what it takes";
        Fault::new(Kind::MethodNotAllowed, "method_not_allowed", detail)
    };
    Ok(Router::new()
        .merge(api)
        .route("/api/v1/ws/{*stream}", get(live::websocket))
        .nest("/prometheus", compat::prometheus::router())
        .with_state(state.clone())
        .merge(SwaggerUi::new("/docs").external_url_unchecked("/openapi.json", document))
        .fallback(missing)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(1 << 20))
        .layer(CatchPanicLayer::custom(|_panic| {
            axum::response::IntoResponse::into_response(Fault::internal(std::io::Error::other("a route panicked")))
        }))
        .layer(middleware::from_fn_with_state(metrics, service_metrics::observe))
        .layer(middleware::from_fn_with_state(state.clone(), request_id::attach))
        .layer(CompressionLayer::new().gzip(true)))
}

fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(document::Document::openapi())
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(auth::keys))
        .routes(routes!(keys::list))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::retire))
        .routes(routes!(users::end_sessions))
        .routes(routes!(agents::issue_token))
        .routes(routes!(agents::list_tokens, agents::revoke_tokens))
        .routes(routes!(agents::revoke_token))
        .routes(routes!(resources::list))
        .routes(routes!(resources::get))
        .routes(routes!(processes::list))
        .routes(routes!(metrics::query))
        .routes(routes!(metrics::query_range))
        .routes(routes!(logs::search))
        .routes(routes!(rules::list, rules::create))
        .routes(routes!(rules::get, rules::update, rules::delete))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::resolve))
        .routes(routes!(receivers::list, receivers::create))
        .routes(routes!(receivers::get, receivers::update, receivers::delete))
        .routes(routes!(receivers::rotate))
        .routes(routes!(deliveries::list))
        .routes(routes!(status::get))
}

#[cfg(test)]
mod tests {
    use crate::document;

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let (_, document) = super::api().split_for_parts();
        document::tests::check(&document::finish(&document).unwrap());
    }
}
