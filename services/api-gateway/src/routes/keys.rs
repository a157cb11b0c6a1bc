//! The keys that sign tokens.

use authn::Permission;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fault::Fault;
use proto::auth::{ListKeysRequest, RetireKeyRequest, RotateKeysRequest, SigningKey};
use serde::Serialize;
use utoipa::ToSchema;

use crate::body::Id;
use crate::instant;
use crate::state::{AppState, Caller};

#[derive(Serialize, ToSchema)]
pub(crate) struct Key {
    /// The `kid` of its tokens
    id: String,
    /// announced, active, retiring or retired
    state: String,
    announced_at: String,
    /// When it signs first; what lies ahead is a plan
    active_at: String,
    /// Null while it verifies
    retired_at: Option<String>,
    /// Agents' tokens that it signed and that are good now: what retiring it would take along
    agent_tokens: u64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct KeyList {
    /// Newest first
    items: Vec<Key>,
}

impl From<SigningKey> for Key {
    fn from(key: SigningKey) -> Self {
        Self {
            id: key.id,
            state: key.state,
            announced_at: instant::rfc3339(key.announced_unix_nano),
            active_at: instant::rfc3339(key.active_unix_nano),
            retired_at: instant::rfc3339_or_none(key.retired_unix_nano),
            agent_tokens: key.agent_tokens,
        }
    }
}

/// List the keys that sign tokens. Needs `keys:write`.
#[utoipa::path(get, path = "/api/v1/auth/keys", tag = "auth", responses((status = 200, body = KeyList)))]
pub(crate) async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<KeyList>, Fault> {
    let request = caller.request(Permission::KeysWrite, ListKeysRequest {})?;
    let answer = state.clients.auth.clone().list_keys(request).await?.into_inner();
    Ok(Json(KeyList { items: answer.items.into_iter().map(Key::from).collect() }))
}

/// Announce a new key. It signs once every verifier has it; tokens of the one before stay good. Needs `keys:write`.
#[utoipa::path(post, path = "/api/v1/auth/keys/rotate", tag = "auth", responses((status = 200, body = Key)))]
pub(crate) async fn rotate(State(state): State<AppState>, caller: Caller) -> Result<Json<Key>, Fault> {
    let request = caller.request(Permission::KeysWrite, RotateKeysRequest {})?;
    Ok(Json(state.clients.auth.clone().rotate_keys(request).await?.into_inner().into()))
}

/// Withdraw a key with every token that it signed. Not the one that signs. Needs `keys:write`.
#[utoipa::path(delete, path = "/api/v1/auth/keys/{id}", tag = "auth", params(("id" = String, Path)),
    responses((status = 204), (status = 404), (status = 409, description = "The key signs: rotate first")))]
pub(crate) async fn retire(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id<String>,
) -> Result<StatusCode, Fault> {
    let request = caller.request(Permission::KeysWrite, RetireKeyRequest { id })?;
    state.clients.auth.clone().retire_key(request).await?;
    Ok(StatusCode::NO_CONTENT)
}
