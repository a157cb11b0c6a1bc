//! Logging in and staying so.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use fault::Fault;
use proto::auth::{LoginRequest, LogoutRequest, RefreshRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::Body;
use crate::state::AppState;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    /// `default` when left out
    tenant: Option<String>,
    username: String,
    password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshToken {
    refresh_token: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Tokens {
    /// Goes into `Authorization: Bearer`
    access_token: String,
    /// `Bearer`
    token_type: &'static str,
    /// Seconds until the access token ends
    expires_in: u64,
    /// Good once; its answer brings the next one
    refresh_token: String,
    user: User,
}

#[derive(Serialize, ToSchema, Default)]
pub(crate) struct User {
    id: String,
    tenant: String,
    username: String,
    roles: Vec<String>,
    permissions: Vec<String>,
}

impl From<proto::auth::Tokens> for Tokens {
    fn from(tokens: proto::auth::Tokens) -> Self {
        let user = tokens.user.unwrap_or_default();
        Self {
            access_token: tokens.access_token,
            token_type: "Bearer",
            expires_in: tokens.expires_in_seconds,
            refresh_token: tokens.refresh_token,
            user: User {
                id: user.id,
                tenant: user.tenant,
                username: user.username,
                roles: user.roles,
                permissions: user.permissions,
            },
        }
    }
}

/// Trade a user name and password for tokens.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", request_body = Credentials, security(()),
    responses((status = 200, body = Tokens), (status = 401, description = "Wrong user name or password")))]
pub(crate) async fn login(
    State(state): State<AppState>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    Body(credentials): Body<Credentials>,
) -> Result<Json<Tokens>, Fault> {
    let request = LoginRequest {
        tenant: credentials.tenant.unwrap_or_else(|| "default".to_owned()),
        username: credentials.username,
        password: credentials.password,
        remote_address: remote.ip().to_string(),
        device: String::new(),
    };
    let tokens = state.clients.auth.clone().login(request).await?.into_inner();
    Ok(Json(tokens.into()))
}

/// Trade a refresh token for the next pair.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "auth", request_body = RefreshToken, security(()),
    responses((status = 200, body = Tokens), (status = 401, description = "The token is used up or unknown")))]
pub(crate) async fn refresh(
    State(state): State<AppState>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    Body(token): Body<RefreshToken>,
) -> Result<Json<Tokens>, Fault> {
    let request = RefreshRequest { refresh_token: token.refresh_token, remote_address: remote.ip().to_string() };
    let tokens = state.clients.auth.clone().refresh(request).await?.into_inner();
    Ok(Json(tokens.into()))
}

/// End a login: its refresh tokens are good no more.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", request_body = RefreshToken, security(()),
    responses((status = 204)))]
pub(crate) async fn logout(
    State(state): State<AppState>,
    Body(token): Body<RefreshToken>,
) -> Result<StatusCode, Fault> {
    let request = LogoutRequest { refresh_token: token.refresh_token };
    state.clients.auth.clone().logout(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The public keys that verify Sightline's tokens (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", security(()), responses((status = 200)))]
pub(crate) async fn keys(State(state): State<AppState>) -> Result<impl IntoResponse, Fault> {
    Ok(([(header::CONTENT_TYPE, "application/jwk-set+json")], state.verifier.jwks()?))
}
