//! Where notifications go.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use fault::Fault;
use proto::dispatch::{CreateReceiverRequest, ListReceiversRequest};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::body::{Body, Page, Parameters, limit};
use crate::instant;
use crate::routes::rules::idempotency_key;
use crate::state::{AppState, Caller};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewReceiver {
    /// What rules call it
    name: String,
    webhook: Webhook,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    /// http or https
    url: String,
    /// Signs each call (Standard Webhooks 1.0); made when left out, shown only in the answer to its creation
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Receiver {
    id: String,
    name: String,
    webhook: Webhook,
    created_at: String,
}

impl From<proto::dispatch::Receiver> for Receiver {
    fn from(receiver: proto::dispatch::Receiver) -> Self {
        let webhook = receiver.webhook.unwrap_or_default();
        Self {
            id: receiver.id,
            name: receiver.name,
            webhook: Webhook { url: webhook.url, secret: (!webhook.secret.is_empty()).then_some(webhook.secret) },
            created_at: instant::rfc3339(receiver.created_unix_nano),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// 1 to 1000; 100 when left out
    limit: Option<u32>,
    cursor: Option<String>,
}

/// List receivers. Needs `receivers:read`.
#[utoipa::path(get, path = "/api/v1/receivers", tag = "receivers", params(ListParameters),
    responses((status = 200, body = Page<Receiver>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Page<Receiver>>, Fault> {
    let request =
        ListReceiversRequest { limit: limit(parameters.limit)?, cursor: parameters.cursor.unwrap_or_default() };
    let answer = state.clients.dispatch.clone().list_receivers(caller.request(request)).await?.into_inner();
    Ok(Page::new(answer.items, answer.next))
}

/// Create a receiver. Needs `receivers:write`.
#[utoipa::path(post, path = "/api/v1/receivers", tag = "receivers", request_body = NewReceiver,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key again answers the first receiver")),
    responses((status = 201, body = Receiver), (status = 400), (status = 409, description = "The name is taken")))]
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Body(receiver): Body<NewReceiver>,
) -> Result<(StatusCode, Json<Receiver>), Fault> {
    let webhook =
        proto::dispatch::Webhook { url: receiver.webhook.url, secret: receiver.webhook.secret.unwrap_or_default() };
    let idempotency_key = idempotency_key(&headers)?;
    let request = CreateReceiverRequest { name: receiver.name, webhook: Some(webhook), idempotency_key };
    let receiver = state.clients.dispatch.clone().create_receiver(caller.request(request)).await?.into_inner();
    Ok((StatusCode::CREATED, Json(receiver.into())))
}
