//! Where notifications go.

use authn::Permission;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fault::Fault;
use proto::dispatch::{
    CreateReceiverRequest, DeleteReceiverRequest, GetReceiverRequest, ListReceiversRequest, RotateSecretRequest,
    UpdateReceiverRequest,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{Body, Id, Page, Paging, Parameters, limit};
use crate::conditions::{etag, expected_version, idempotency_key};
use crate::instant;
use crate::state::{AppState, Caller};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewReceiver {
    /// What rules call it
    name: String,
    webhook: NewWebhook,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    /// http or https, without credentials or a fragment
    url: String,
    /// Signs each call (Standard Webhooks 1.0); made when left out, shown only in the answer to its creation
    secret: Option<String>,
}

/// A name cannot change: rules name it. A secret changes by rotation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReceiverChange {
    /// The present name, or left out
    name: Option<String>,
    webhook: WebhookChange,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookChange {
    /// http or https, without credentials or a fragment
    url: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// The new secret; made when left out
    secret: Option<String>,
    /// How long the old one signs too; a day when left out, 30 at most
    overlap: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Webhook {
    url: String,
    /// Shown once, in the answers to creation and rotation
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Receiver {
    id: String,
    name: String,
    webhook: Webhook,
    /// Rises by one with every change; also the `ETag`
    version: u64,
    created_at: String,
    updated_at: String,
    /// Until when the secret before the last rotation signs too; null when there is only one
    old_secret_until: Option<String>,
    /// Failed attempts since the last success: from three on it counts as down, and is probed once in a while
    failures: u32,
    /// When a receiver that is down is probed next
    next_attempt_at: Option<String>,
}

impl From<proto::dispatch::Receiver> for Receiver {
    fn from(receiver: proto::dispatch::Receiver) -> Self {
        let webhook = receiver.webhook.unwrap_or_default();
        Self {
            id: receiver.id,
            name: receiver.name,
            webhook: Webhook { url: webhook.url, secret: (!webhook.secret.is_empty()).then_some(webhook.secret) },
            version: receiver.version,
            created_at: instant::rfc3339(receiver.created_unix_nano),
            updated_at: instant::rfc3339(receiver.updated_unix_nano),
            old_secret_until: instant::rfc3339_or_none(receiver.old_secret_until_unix_nano),
            failures: receiver.failures,
            next_attempt_at: instant::rfc3339_or_none(receiver.next_attempt_unix_nano),
        }
    }
}

fn respond(status: StatusCode, receiver: proto::dispatch::Receiver) -> Response {
    let receiver = Receiver::from(receiver);
    (status, [(header::ETAG, etag(receiver.version))], Json(receiver)).into_response()
}

/// List receivers. Needs `receivers:read`.
#[utoipa::path(get, path = "/api/v1/receivers", tag = "receivers", params(Paging),
    responses((status = 200, body = Page<Receiver>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Parameters(paging): Parameters<Paging>,
) -> Result<Json<Page<Receiver>>, Fault> {
    let request = ListReceiversRequest { limit: limit(paging.limit)?, cursor: paging.cursor.unwrap_or_default() };
    let request = caller.request(Permission::ReceiversRead, request)?;
    let answer = state.clients.dispatch.clone().list_receivers(request).await?.into_inner();
    Ok(Page::new(answer.items, answer.next))
}

/// Create a receiver. Needs `receivers:write`.
#[utoipa::path(post, path = "/api/v1/receivers", tag = "receivers", request_body = NewReceiver,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key again answers the first receiver")),
    responses((status = 201, body = Receiver, headers(("ETag" = String))),
        (status = 409, description = "The name is taken, or the key was used for another receiver")))]
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Body(receiver): Body<NewReceiver>,
) -> Result<Response, Fault> {
    let webhook =
        proto::dispatch::Webhook { url: receiver.webhook.url, secret: receiver.webhook.secret.unwrap_or_default() };
    let idempotency_key = idempotency_key(&headers)?;
    let request = CreateReceiverRequest { name: receiver.name, webhook: Some(webhook), idempotency_key };
    let request = caller.request(Permission::ReceiversWrite, request)?;
    let receiver = state.clients.dispatch.clone().create_receiver(request).await?.into_inner();
    Ok(respond(StatusCode::CREATED, receiver))
}

/// One receiver, by id or name. Needs `receivers:read`.
#[utoipa::path(get, path = "/api/v1/receivers/{id}", tag = "receivers", params(("id" = String, Path)),
    responses((status = 200, body = Receiver, headers(("ETag" = String))), (status = 404)))]
pub(crate) async fn get(State(state): State<AppState>, caller: Caller, Id(id): Id<String>) -> Result<Response, Fault> {
    let request = caller.request(Permission::ReceiversRead, GetReceiverRequest { id })?;
    Ok(respond(StatusCode::OK, state.clients.dispatch.clone().get_receiver(request).await?.into_inner()))
}

/// Change where a receiver is. Needs `receivers:write`.
#[utoipa::path(put, path = "/api/v1/receivers/{id}", tag = "receivers", request_body = ReceiverChange,
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that the receiver was read with, or `*`")),
    responses((status = 200, body = Receiver, headers(("ETag" = String))), (status = 404),
        (status = 412, description = "The receiver changed since")))]
pub(crate) async fn update(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id<String>,
    headers: HeaderMap,
    Body(change): Body<ReceiverChange>,
) -> Result<Response, Fault> {
    let request = UpdateReceiverRequest {
        id,
        version: expected_version(&headers)?,
        name: change.name.unwrap_or_default(),
        webhook: Some(proto::dispatch::Webhook { url: change.webhook.url, secret: String::new() }),
    };
    let request = caller.request(Permission::ReceiversWrite, request)?;
    Ok(respond(StatusCode::OK, state.clients.dispatch.clone().update_receiver(request).await?.into_inner()))
}

/// Delete a receiver. Rules that name it tell it no more. Needs `receivers:write`.
#[utoipa::path(delete, path = "/api/v1/receivers/{id}", tag = "receivers",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that the receiver was read with, or `*`")),
    responses((status = 204), (status = 404), (status = 412, description = "The receiver changed since")))]
pub(crate) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    let request = DeleteReceiverRequest { id, version: expected_version(&headers)? };
    let request = caller.request(Permission::ReceiversWrite, request)?;
    state.clients.dispatch.clone().delete_receiver(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a receiver another secret; calls are signed with both until the old one runs out. Needs `receivers:write`.
#[utoipa::path(post, path = "/api/v1/receivers/{id}/rotate", tag = "receivers", request_body = Rotation,
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that the receiver was read with, or `*`")),
    responses((status = 200, body = Receiver, headers(("ETag" = String))), (status = 404),
        (status = 412, description = "The receiver changed since")))]
pub(crate) async fn rotate(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id<String>,
    headers: HeaderMap,
    Body(rotation): Body<Rotation>,
) -> Result<Response, Fault> {
    let overlap_millis = rotation.overlap.map_or(Ok(0), |text| instant::millis("overlap", &text))?;
    let secret = rotation.secret.unwrap_or_default();
    let request = RotateSecretRequest { id, version: expected_version(&headers)?, secret, overlap_millis };
    let request = caller.request(Permission::ReceiversWrite, request)?;
    Ok(respond(StatusCode::OK, state.clients.dispatch.clone().rotate_secret(request).await?.into_inner()))
}
