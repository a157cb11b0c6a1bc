//! The gRPC API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use authn::{Permission, Signer, Verifier};
use fault::Fault;
use proto::auth::auth_server::Auth;
use proto::auth::{
    GetKeysRequest, GetKeysResponse, IssueAgentTokenRequest, IssueAgentTokenResponse, LoginRequest, LogoutRequest,
    LogoutResponse, RefreshRequest, Tokens,
};
use tonic::{Request, Response, Status};

use crate::login::Logins;
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::store::Store;

/// An agent's id becomes a label and part of other ids.
const MAX_AGENT_ID_BYTES: usize = 128;

/// `sightline.auth.v1.Auth`
pub struct Api {
    pub(crate) logins: Logins,
    pub(crate) sessions: Sessions,
    pub(crate) verifier: Verifier,
    pub(crate) signer: Signer,
    pub(crate) store: Store,
    pub(crate) agent_token_lifetime: Duration,
    pub(crate) metrics: Metrics,
}

#[tonic::async_trait]
impl Auth for Api {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<Tokens>, Status> {
        Ok(Response::new(self.logins.attempt(request.get_ref()).await?))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<Tokens>, Status> {
        Ok(Response::new(self.sessions.rotate(&request.get_ref().refresh_token).await?))
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        self.sessions.close(&request.get_ref().refresh_token).await?;
        Ok(Response::new(LogoutResponse {}))
    }

    async fn get_keys(&self, _: Request<GetKeysRequest>) -> Result<Response<GetKeysResponse>, Status> {
        Ok(Response::new(GetKeysResponse { jwks_json: self.verifier.jwks()? }))
    }

    async fn issue_agent_token(
        &self,
        request: Request<IssueAgentTokenRequest>,
    ) -> Result<Response<IssueAgentTokenResponse>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::AgentsWrite)?;
        let agent_id = &request.get_ref().agent_id;
        check_agent_id(agent_id)?;
        let issued = self
            .signer
            .agent(&caller.tenant, agent_id, SystemTime::now(), self.agent_token_lifetime)
            .map_err(Fault::internal)?;
        self.store.record_agent_token(&issued, &caller.tenant, agent_id, &caller.subject).await?;
        self.metrics.agent_tokens.inc();
        tracing::info!(tenant = caller.tenant, agent_id, issued_by = caller.subject, id = %issued.id, "agent token issued");
        let nanos = issued.expires.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        Ok(Response::new(IssueAgentTokenResponse {
            token: issued.token,
            expires_unix_nano: u64::try_from(nanos).unwrap_or(u64::MAX),
        }))
    }
}

fn check_agent_id(id: &str) -> fault::Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if !id.is_empty() && id.len() <= MAX_AGENT_ID_BYTES && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(Fault::field("agent_id", format!("write 1 to {MAX_AGENT_ID_BYTES} letters, digits, or any of `._:-`")))
}
