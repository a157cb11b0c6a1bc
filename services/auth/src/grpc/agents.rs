//! Agents' tokens: handed out, listed, taken back.

use std::time::SystemTime;

use authn::Permission;
use fault::Fault;
use proto::auth::{
    AgentToken, IssueAgentTokenRequest, IssueAgentTokenResponse, ListAgentTokensRequest, ListAgentTokensResponse,
    RevokeAgentTokensRequest, RevokeAgentTokensResponse,
};
use time::OffsetDateTime;
use tonic::Request;
use uuid::Uuid;

use super::Api;
use crate::keyring::unix_nano;

/// An agent's id becomes a label and part of other ids.
const MAX_AGENT_ID_BYTES: usize = 128;

impl Api {
    pub(super) async fn issue(
        &self,
        request: &Request<IssueAgentTokenRequest>,
    ) -> fault::Result<IssueAgentTokenResponse> {
        let caller = self.caller(request, Permission::AgentsWrite).await?;
        let agent_id = &request.get_ref().agent_id;
        check_agent_id(agent_id)?;
        let signer = self.keyring.signer();
        let issued = signer
            .agent(&caller.tenant, agent_id, SystemTime::now(), self.agent_token_lifetime)
            .map_err(Fault::internal)?;
        let scope = caller.scope();
        self.store.record_agent_token(&issued, signer.key_id(), &scope, agent_id, &caller.subject).await?;
        self.metrics.agent_tokens.inc();
        tracing::info!(tenant = caller.tenant, agent_id, issued_by = caller.subject, id = %issued.id, "agent token issued");
        Ok(IssueAgentTokenResponse {
            expires_unix_nano: unix_nano(issued.expires),
            id: issued.id.to_string(),
            token: issued.token,
        })
    }

    pub(super) async fn token_list(
        &self,
        request: &Request<ListAgentTokensRequest>,
    ) -> fault::Result<ListAgentTokensResponse> {
        let caller = self.caller(request, Permission::AgentsWrite).await?;
        let asked = request.get_ref();
        check_agent_id(&asked.agent_id)?;
        let limit = page::limit(asked.limit)?;
        let before = page::place(&asked.cursor, |place| {
            let (nanos, id) = place.split_once(' ')?;
            let at = OffsetDateTime::from_unix_timestamp_nanos(nanos.parse().ok()?).ok()?;
            Some((at, id.parse::<Uuid>().ok()?))
        })?;
        let mut rows = self.store.agent_tokens(&caller.scope(), &asked.agent_id, before, limit + 1).await?;
        let next = page::cut(&mut rows, limit, |row| format!("{} {}", row.issued_at.unix_timestamp_nanos(), row.id));
        Ok(ListAgentTokensResponse { items: rows.into_iter().map(message).collect(), next })
    }

    pub(super) async fn revoke(
        &self,
        request: &Request<RevokeAgentTokensRequest>,
    ) -> fault::Result<RevokeAgentTokensResponse> {
        let caller = self.caller(request, Permission::AgentsWrite).await?;
        let RevokeAgentTokensRequest { agent_id, id } = request.get_ref();
        check_agent_id(agent_id)?;
        let missing = || Fault::not_found("agent_token", if id.is_empty() { agent_id } else { id });
        let token = match id.as_str() {
            "" => None,
            id => Some(id.parse::<Uuid>().map_err(|_| missing())?),
        };
        let revoked = self.store.revoke_agent_tokens(&caller.scope(), agent_id, token).await?.ok_or_else(missing)?;
        self.keyring.nudge();
        tracing::info!(tenant = caller.tenant, agent_id, revoked, by = caller.subject, "agent tokens taken back");
        Ok(RevokeAgentTokensResponse { revoked })
    }
}

fn message(token: crate::store::AgentToken) -> AgentToken {
    AgentToken {
        id: token.id.to_string(),
        agent_id: token.agent_id,
        issued_by: token.issued_by,
        issued_unix_nano: unix_nano(token.issued_at.into()),
        expires_unix_nano: unix_nano(token.expires_at.into()),
        revoked_unix_nano: token.revoked_at.map_or(0, |at| unix_nano(at.into())),
    }
}

fn check_agent_id(id: &str) -> fault::Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if !id.is_empty() && id.len() <= MAX_AGENT_ID_BYTES && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(Fault::field("agent_id", format!("write 1 to {MAX_AGENT_ID_BYTES} letters, digits, or any of `._:-`")))
}
