//! Agents' credentials.

use axum::Json;
use axum::extract::{Path, State};
use fault::Fault;
use proto::auth::IssueAgentTokenRequest;
use serde::Serialize;
use utoipa::ToSchema;

use crate::instant;
use crate::state::{AppState, Caller};

#[derive(Serialize, ToSchema)]
pub(crate) struct AgentToken {
    /// Shown once; give it to the agent as SIGHTLINE_AGENT_TOKEN_FILE
    token: String,
    expires_at: String,
}

/// Issue a credential for one agent. Needs `agents:write`.
#[utoipa::path(post, path = "/api/v1/agents/{agent_id}/token", tag = "agents",
    params(("agent_id" = String, Path, description = "What `agent id` prints on the agent's machine")),
    responses((status = 200, body = AgentToken), (status = 403)))]
pub(crate) async fn issue_token(
    State(state): State<AppState>,
    caller: Caller,
    Path(agent_id): Path<String>,
) -> Result<Json<AgentToken>, Fault> {
    let request = caller.request(IssueAgentTokenRequest { agent_id });
    let answer = state.clients.auth.clone().issue_agent_token(request).await?.into_inner();
    Ok(Json(AgentToken { token: answer.token, expires_at: instant::rfc3339(answer.expires_unix_nano) }))
}
