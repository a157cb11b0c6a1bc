//! Alerts, firing and resolved.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use fault::Fault;
use proto::alerts::ListAlertsRequest;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::body::{Page, Parameters, limit};
use crate::instant;
use crate::state::{AppState, Caller};

#[derive(Serialize, ToSchema)]
pub(crate) struct Alert {
    /// Same rule and series: the same for ever
    id: String,
    rule_id: String,
    rule_name: String,
    level: String,
    /// firing or resolved
    state: String,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
    /// The sample's value; null for log rules
    value: Option<f64>,
    /// The log line; null for metric rules
    line: Option<String>,
    condition: String,
    resource_id: String,
    starts_at: String,
    /// Null while firing
    ends_at: Option<String>,
    updated_at: String,
    receivers: Vec<String>,
    /// How often it has fired
    occurrences: u64,
    /// What was last heard of its notification: none, pending, sent, delivered or failed
    delivery: String,
}

impl From<proto::alerts::Alert> for Alert {
    fn from(alert: proto::alerts::Alert) -> Self {
        Self {
            id: alert.id,
            rule_id: alert.rule_id,
            rule_name: alert.rule_name,
            level: alert.level,
            state: alert.state,
            labels: alert.labels,
            annotations: alert.annotations,
            value: alert.value.is_finite().then_some(alert.value),
            line: (!alert.line.is_empty()).then_some(alert.line),
            condition: alert.condition,
            resource_id: alert.resource_id,
            starts_at: instant::rfc3339(alert.starts_unix_nano),
            ends_at: instant::rfc3339_or_none(alert.ends_unix_nano),
            updated_at: instant::rfc3339(alert.updated_unix_nano),
            receivers: alert.receivers,
            occurrences: alert.occurrences,
            delivery: alert.delivery,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// firing or resolved; both when left out
    state: Option<String>,
    rule_id: Option<String>,
    /// A selector over the alert's labels
    r#match: Option<String>,
    /// 1 to 1000; 100 when left out
    limit: Option<u32>,
    cursor: Option<String>,
}

/// List alerts, newest first. Needs `alerts:read`.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", params(ListParameters),
    responses((status = 200, body = Page<Alert>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Page<Alert>>, Fault> {
    let request = ListAlertsRequest {
        state: parameters.state.unwrap_or_default(),
        rule_id: parameters.rule_id.unwrap_or_default(),
        r#match: parameters.r#match.unwrap_or_default(),
        limit: limit(parameters.limit)?,
        cursor: parameters.cursor.unwrap_or_default(),
    };
    let answer = state.clients.alerts.clone().list_alerts(caller.request(request)).await?.into_inner();
    Ok(Page::new(answer.items, answer.next))
}
