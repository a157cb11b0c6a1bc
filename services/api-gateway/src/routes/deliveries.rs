//! The ledger: what was told to whom, and every attempt.

use authn::Permission;
use axum::Json;
use axum::extract::State;
use fault::Fault;
use proto::dispatch::ListDeliveriesRequest;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::body::{Page, Parameters, limit};
use crate::instant;
use crate::state::{AppState, Caller};

#[derive(Serialize, ToSchema)]
pub(crate) struct Delivery {
    id: String,
    notification_id: String,
    /// The first of the alerts that are told
    alert_id: String,
    rule_name: String,
    /// What is told: firing if any of the alerts is, else resolved
    alert_state: String,
    /// Name of the receiver
    receiver: String,
    /// pending, delivered, failed, or superseded: the receiver has had something newer of the same group
    state: String,
    /// Why it is pending still, or how it ended
    reason: Option<String>,
    /// The alerts that are told together
    group_id: String,
    /// Its place among the notifications of the group
    sequence: u64,
    /// How many alerts it tells
    alerts: u32,
    attempts: Vec<Attempt>,
    created_at: String,
    finished_at: Option<String>,
    next_attempt_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Attempt {
    number: u32,
    started_at: String,
    /// Milliseconds
    duration_ms: u32,
    /// Null when no answer came
    http_status: Option<u32>,
    error: Option<String>,
}

impl From<proto::dispatch::Attempt> for Attempt {
    fn from(attempt: proto::dispatch::Attempt) -> Self {
        Self {
            number: attempt.number,
            started_at: instant::rfc3339(attempt.started_unix_nano),
            duration_ms: attempt.duration_millis,
            http_status: (attempt.http_status != 0).then_some(attempt.http_status),
            error: (!attempt.error.is_empty()).then_some(attempt.error),
        }
    }
}

impl From<proto::dispatch::Delivery> for Delivery {
    fn from(delivery: proto::dispatch::Delivery) -> Self {
        Self {
            id: delivery.id,
            notification_id: delivery.notification_id,
            alert_id: delivery.alert_id,
            rule_name: delivery.rule_name,
            alert_state: delivery.alert_state,
            receiver: delivery.receiver,
            state: delivery.state,
            reason: (!delivery.reason.is_empty()).then_some(delivery.reason),
            group_id: delivery.group_id,
            sequence: delivery.sequence,
            alerts: delivery.alerts,
            attempts: delivery.attempts.into_iter().map(Attempt::from).collect(),
            created_at: instant::rfc3339(delivery.created_unix_nano),
            finished_at: instant::rfc3339_or_none(delivery.finished_unix_nano),
            next_attempt_at: instant::rfc3339_or_none(delivery.next_attempt_unix_nano),
        }
    }
}

#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryState {
    Pending,
    Delivered,
    Failed,
    Superseded,
}

impl DeliveryState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    alert_id: Option<String>,
    /// Name of a receiver
    receiver: Option<String>,
    #[param(inline)]
    state: Option<DeliveryState>,
    /// 1 to 1000; 100 when left out
    limit: Option<u32>,
    cursor: Option<String>,
}

/// List deliveries, newest first. Needs `deliveries:read`.
#[utoipa::path(get, path = "/api/v1/deliveries", tag = "deliveries", params(ListParameters),
    responses((status = 200, body = Page<Delivery>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Page<Delivery>>, Fault> {
    let request = ListDeliveriesRequest {
        alert_id: parameters.alert_id.unwrap_or_default(),
        receiver: parameters.receiver.unwrap_or_default(),
        state: parameters.state.map_or("", DeliveryState::as_str).to_owned(),
        limit: limit(parameters.limit)?,
        cursor: parameters.cursor.unwrap_or_default(),
    };
    let answer = state
        .clients
        .dispatch
        .clone()
        .list_deliveries(caller.request(Permission::DeliveriesRead, request)?)
        .await?
        .into_inner();
    Ok(Page::new(answer.items, answer.next))
}
