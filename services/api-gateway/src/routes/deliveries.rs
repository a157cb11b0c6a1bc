//! The ledger: what was told to whom, and every attempt.

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
    alert_id: String,
    rule_name: String,
    /// What is told: firing or resolved
    alert_state: String,
    /// Name of the receiver
    receiver: String,
    /// pending, delivered or failed
    state: String,
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
            attempts: delivery.attempts.into_iter().map(Attempt::from).collect(),
            created_at: instant::rfc3339(delivery.created_unix_nano),
            finished_at: instant::rfc3339_or_none(delivery.finished_unix_nano),
            next_attempt_at: instant::rfc3339_or_none(delivery.next_attempt_unix_nano),
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
    /// pending, delivered or failed
    state: Option<String>,
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
        state: parameters.state.unwrap_or_default(),
        limit: limit(parameters.limit)?,
        cursor: parameters.cursor.unwrap_or_default(),
    };
    let answer = state.clients.dispatch.clone().list_deliveries(caller.request(request)).await?.into_inner();
    Ok(Page::new(answer.items, answer.next))
}
