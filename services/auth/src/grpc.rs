//! The gRPC API: logins and sessions here, keys and agents' tokens beside it.

mod agents;
mod keys;

use std::time::Duration;

use authn::{Permission, Principal, Verifier};
use fault::Fault;
use proto::auth::auth_server::Auth;
use proto::auth::{
    EndSessionsRequest, EndSessionsResponse, FollowRequest, FollowResponse, GetKeysRequest, GetKeysResponse,
    IssueAgentTokenRequest, IssueAgentTokenResponse, ListAgentTokensRequest, ListAgentTokensResponse, ListKeysRequest,
    ListKeysResponse, LoginRequest, LogoutRequest, LogoutResponse, RefreshRequest, RetireKeyRequest,
    RevokeAgentTokensRequest, RevokeAgentTokensResponse, RotateKeysRequest, SigningKey, Tokens,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::keyring::Keyring;
use crate::login::Logins;
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::store::Store;

/// `sightline.auth.v1.Auth`
pub struct Api {
    pub(crate) logins: Logins,
    pub(crate) sessions: Sessions,
    pub(crate) verifier: Verifier,
    pub(crate) keyring: Keyring,
    pub(crate) store: Store,
    pub(crate) agent_token_lifetime: Duration,
    pub(crate) key_announcement: Duration,
    pub(crate) metrics: Metrics,
}

impl Api {
    async fn caller<T>(&self, request: &Request<T>, permission: Permission) -> fault::Result<Principal> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(permission)?;
        Ok(caller)
    }

    async fn end_user_sessions(&self, request: Request<EndSessionsRequest>) -> fault::Result<EndSessionsResponse> {
        let caller = self.caller(&request, Permission::UsersWrite).await?;
        let id = &request.get_ref().user_id;
        let missing = || Fault::not_found("user", id);
        let user: Uuid = id.parse().map_err(|_| missing())?;
        let ended = self.store.end_sessions(caller.scope().tenant(), user).await?.ok_or_else(missing)?;
        self.keyring.nudge();
        tracing::info!(tenant = caller.tenant, %user, ended, ended_by = caller.subject, "sessions of a user ended");
        Ok(EndSessionsResponse { ended })
    }
}

#[tonic::async_trait]
impl Auth for Api {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<Tokens>, Status> {
        Ok(Response::new(self.logins.attempt(request.get_ref()).await?))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<Tokens>, Status> {
        Ok(Response::new(self.sessions.rotate(request.get_ref()).await?))
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        self.sessions.close(&request.get_ref().refresh_token).await?;
        Ok(Response::new(LogoutResponse {}))
    }

    async fn end_sessions(
        &self,
        request: Request<EndSessionsRequest>,
    ) -> Result<Response<EndSessionsResponse>, Status> {
        Ok(Response::new(self.end_user_sessions(request).await?))
    }

    async fn get_keys(&self, _: Request<GetKeysRequest>) -> Result<Response<GetKeysResponse>, Status> {
        Ok(Response::new(GetKeysResponse { jwks_json: self.keyring.jwks() }))
    }

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<FollowResponse>, Status> {
        Ok(Response::new(self.keyring.follow(request.get_ref()).await?))
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Result<Response<ListKeysResponse>, Status> {
        Ok(Response::new(self.key_list(&request).await?))
    }

    async fn rotate_keys(&self, request: Request<RotateKeysRequest>) -> Result<Response<SigningKey>, Status> {
        Ok(Response::new(self.rotate(&request).await?))
    }

    async fn retire_key(&self, request: Request<RetireKeyRequest>) -> Result<Response<SigningKey>, Status> {
        Ok(Response::new(self.retire(&request).await?))
    }

    async fn issue_agent_token(
        &self,
        request: Request<IssueAgentTokenRequest>,
    ) -> Result<Response<IssueAgentTokenResponse>, Status> {
        Ok(Response::new(self.issue(&request).await?))
    }

    async fn list_agent_tokens(
        &self,
        request: Request<ListAgentTokensRequest>,
    ) -> Result<Response<ListAgentTokensResponse>, Status> {
        Ok(Response::new(self.token_list(&request).await?))
    }

    async fn revoke_agent_tokens(
        &self,
        request: Request<RevokeAgentTokensRequest>,
    ) -> Result<Response<RevokeAgentTokensResponse>, Status> {
        Ok(Response::new(self.revoke(&request).await?))
    }
}
