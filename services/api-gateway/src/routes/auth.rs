//! Logging in and staying so.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
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

/// The device's mark from an earlier login, which keeps its own count of failed ones: guesses from the same address do not
/// hinder it. It is no credential.
const DEVICE: &str = "sightline_device";

fn device(headers: &HeaderMap) -> String {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == DEVICE).map(|(_, mark)| mark.to_owned()).unwrap_or_default()
}

/// Trade a user name and password for tokens.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", request_body = Credentials, security(()),
    responses((status = 200, body = Tokens, headers(("Set-Cookie" = String))),
        (status = 401, description = "Wrong user name or password"), (status = 429, description = "Too many failed logins")))]
pub(crate) async fn login(
    State(state): State<AppState>,
    Extension(peer): Extension<edge::Peer>,
    headers: HeaderMap,
    Body(credentials): Body<Credentials>,
) -> Result<Response, Fault> {
    let request = LoginRequest {
        tenant: credentials.tenant.unwrap_or_else(|| "default".to_owned()),
        username: credentials.username,
        password: credentials.password,
        remote_address: peer.client.to_string(),
        device: device(&headers),
    };
    let tokens = state.clients.auth.clone().login(request).await?.into_inner();
    let (mark, seconds) = (tokens.device.clone(), tokens.device_expires_in_seconds);
    let mut response = Json(Tokens::from(tokens)).into_response();
    let cookie = format!("{DEVICE}={mark}; Path=/api/v1/auth; Max-Age={seconds}; HttpOnly; SameSite=Strict");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Trade a refresh token for the next pair. For some seconds a second use gives the same pair's refresh token again; later it ends
/// the session.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "auth", request_body = RefreshToken, security(()),
    responses((status = 200, body = Tokens), (status = 401, description = "The token is used up or unknown"),
        (status = 429, description = "Too many tokens that are not good")))]
pub(crate) async fn refresh(
    State(state): State<AppState>,
    Extension(peer): Extension<edge::Peer>,
    Body(token): Body<RefreshToken>,
) -> Result<Json<Tokens>, Fault> {
    let request = RefreshRequest { refresh_token: token.refresh_token, remote_address: peer.client.to_string() };
    let tokens = state.clients.auth.clone().refresh(request).await?.into_inner();
    Ok(Json(tokens.into()))
}

/// End a login: neither its refresh tokens nor its access tokens are good any more.
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
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", security(()),
    responses((status = 200, content_type = "application/jwk-set+json", body = serde_json::Value)))]
pub(crate) async fn keys(State(state): State<AppState>) -> Result<impl IntoResponse, Fault> {
    Ok(([(header::CONTENT_TYPE, "application/jwk-set+json")], state.verifier.jwks()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_mark_is_found_among_other_cookies() {
        let mut headers = HeaderMap::new();
        assert_eq!(device(&headers), "");
        headers.append(header::COOKIE, "a=b; sightline_device=sld_x; c=d".parse().unwrap());
        assert_eq!(device(&headers), "sld_x");
    }
}
