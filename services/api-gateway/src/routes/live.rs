//! Live streams, which ws-fanout serves.

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use fault::Fault;

use crate::state::AppState;

/// `GET /api/v1/ws/*`. ws-fanout verifies the token itself.
pub(crate) async fn websocket(State(state): State<AppState>, request: Request) -> Response {
    let is_upgrade =
        request.headers().get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !is_upgrade {
        return Fault::invalid("websocket_expected", "open this address as a WebSocket").into_response();
    }
    match state.live.pass(request).await {
        Ok(response) => response,
        Err(error) => {
            Fault::unavailable("live_unavailable", "live streams are away; try again shortly", error).into_response()
        }
    }
}
