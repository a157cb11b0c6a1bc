//! Users.

use authn::Permission;
use axum::Json;
use axum::extract::State;
use fault::Fault;
use proto::auth::EndSessionsRequest;
use serde::Serialize;
use utoipa::ToSchema;

use crate::body::Id;
use crate::state::{AppState, Caller};

#[derive(Serialize, ToSchema)]
pub(crate) struct Ended {
    /// Sessions that were open
    ended: u32,
}

/// End every session of a user, with the access tokens that are out. Needs `users:write`.
#[utoipa::path(delete, path = "/api/v1/users/{id}/sessions", tag = "auth", params(("id" = String, Path)),
    responses((status = 200, body = Ended), (status = 404)))]
pub(crate) async fn end_sessions(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id<String>,
) -> Result<Json<Ended>, Fault> {
    let request = caller.request(Permission::UsersWrite, EndSessionsRequest { user_id: id })?;
    let answer = state.clients.auth.clone().end_sessions(request).await?.into_inner();
    Ok(Json(Ended { ended: answer.ended }))
}
