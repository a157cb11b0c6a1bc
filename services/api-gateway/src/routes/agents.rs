//! Agents' credentials.

use authn::Permission;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fault::Fault;
use proto::auth::{IssueAgentTokenRequest, ListAgentTokensRequest, RevokeAgentTokensRequest};
use serde::Serialize;
use utoipa::ToSchema;

use crate::body::{Id, Page, Paging, Parameters, limit};
use crate::instant;
use crate::state::{AppState, Caller};

#[derive(Serialize, ToSchema)]
pub(crate) struct NewAgentToken {
    /// By which it can be taken back
    id: String,
    /// Shown once; give it to the agent as SIGHTLINE_AGENT_TOKEN_FILE
    token: String,
    expires_at: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct AgentToken {
    id: String,
    /// Id of the user who issued it
    issued_by: String,
    issued_at: String,
    expires_at: String,
    /// Null while it is good
    revoked_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Revoked {
    /// Tokens that were good
    revoked: u32,
}

impl From<proto::auth::AgentToken> for AgentToken {
    fn from(token: proto::auth::AgentToken) -> Self {
        Self {
            id: token.id,
            issued_by: token.issued_by,
            issued_at: instant::rfc3339(token.issued_unix_nano),
            expires_at: instant::rfc3339(token.expires_unix_nano),
            revoked_at: instant::rfc3339_or_none(token.revoked_unix_nano),
        }
    }
}

/// Issue a credential for one agent. Needs `agents:write`.
#[utoipa::path(post, path = "/api/v1/agents/{agent_id}/token", tag = "agents",
    params(("agent_id" = String, Path, description = "What `agent id` prints on the agent's machine")),
    responses((status = 200, body = NewAgentToken)))]
pub(crate) async fn issue_token(
    State(state): State<AppState>,
    caller: Caller,
    Id(agent_id): Id<String>,
) -> Result<Json<NewAgentToken>, Fault> {
    let request = caller.request(Permission::AgentsWrite, IssueAgentTokenRequest { agent_id })?;
    let answer = state.clients.auth.clone().issue_agent_token(request).await?.into_inner();
    let expires_at = instant::rfc3339(answer.expires_unix_nano);
    Ok(Json(NewAgentToken { id: answer.id, token: answer.token, expires_at }))
}

/// List an agent's credentials, newest first; without the tokens. Needs `agents:write`.
#[utoipa::path(get, path = "/api/v1/agents/{agent_id}/tokens", tag = "agents",
    params(("agent_id" = String, Path), Paging), responses((status = 200, body = Page<AgentToken>)))]
pub(crate) async fn list_tokens(
    State(state): State<AppState>,
    caller: Caller,
    Id(agent_id): Id<String>,
    Parameters(paging): Parameters<Paging>,
) -> Result<Json<Page<AgentToken>>, Fault> {
    let request =
        ListAgentTokensRequest { agent_id, limit: limit(paging.limit)?, cursor: paging.cursor.unwrap_or_default() };
    let request = caller.request(Permission::AgentsWrite, request)?;
    let answer = state.clients.auth.clone().list_agent_tokens(request).await?.into_inner();
    Ok(Page::new(answer.items, answer.next))
}

/// Take back every credential of an agent: it is refused within seconds. Needs `agents:write`.
#[utoipa::path(delete, path = "/api/v1/agents/{agent_id}/tokens", tag = "agents",
    params(("agent_id" = String, Path)), responses((status = 200, body = Revoked), (status = 404)))]
pub(crate) async fn revoke_tokens(
    State(state): State<AppState>,
    caller: Caller,
    Id(agent_id): Id<String>,
) -> Result<Json<Revoked>, Fault> {
    let request = RevokeAgentTokensRequest { agent_id, id: String::new() };
    let request = caller.request(Permission::AgentsWrite, request)?;
    let answer = state.clients.auth.clone().revoke_agent_tokens(request).await?.into_inner();
    Ok(Json(Revoked { revoked: answer.revoked }))
}

/// Take back one credential. Needs `agents:write`.
#[utoipa::path(delete, path = "/api/v1/agents/{agent_id}/tokens/{id}", tag = "agents",
    params(("agent_id" = String, Path), ("id" = String, Path)), responses((status = 204), (status = 404)))]
pub(crate) async fn revoke_token(
    State(state): State<AppState>,
    caller: Caller,
    Id((agent_id, id)): Id<(String, String)>,
) -> Result<StatusCode, Fault> {
    let request = caller.request(Permission::AgentsWrite, RevokeAgentTokensRequest { agent_id, id })?;
    state.clients.auth.clone().revoke_agent_tokens(request).await?;
    Ok(StatusCode::NO_CONTENT)
}
