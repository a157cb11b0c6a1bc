//! Alerts, firing and resolved.

use std::collections::HashMap;

use authn::Permission;
use axum::Json;
use axum::extract::State;
use fault::Fault;
use proto::alerts::{ListAlertsRequest, ResolveAlertRequest};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::body::{Id, Page, Parameters, limit};
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
    /// What identifies the series, and the rule's own labels
    labels: HashMap<String, String>,
    /// What describes the resource; no part of the alert's identity
    descriptive_labels: HashMap<String, String>,
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
    /// How it ended: resolved, lost, by_hand or what changed; null while firing
    ended_reason: Option<String>,
    /// Id of the user who ended it by hand
    ended_by: Option<String>,
    updated_at: String,
    receivers: Vec<String>,
    /// How often it has fired
    occurrences: u64,
    /// Sum of `deliveries`: none, pending, sent, delivered, partly_delivered or failed
    delivery: String,
    /// What each receiver was told last, and what became of it
    deliveries: Vec<ReceiverNews>,
    /// The sample that decided lay far back when it came: nobody was told
    late: bool,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ReceiverNews {
    receiver: String,
    /// pending, delivered, failed or superseded
    state: String,
    error: Option<String>,
    finished_at: Option<String>,
}

impl From<proto::alerts::ReceiverNews> for ReceiverNews {
    fn from(news: proto::alerts::ReceiverNews) -> Self {
        Self {
            receiver: news.receiver,
            state: news.state,
            error: (!news.error.is_empty()).then_some(news.error),
            finished_at: instant::rfc3339_or_none(news.finished_unix_nano),
        }
    }
}

impl From<proto::alerts::Alert> for Alert {
    fn from(alert: proto::alerts::Alert) -> Self {
        let present = |text: String| (!text.is_empty()).then_some(text);
        Self {
            id: alert.id,
            rule_id: alert.rule_id,
            rule_name: alert.rule_name,
            level: alert.level,
            state: alert.state,
            labels: alert.labels,
            descriptive_labels: alert.descriptive_labels,
            annotations: alert.annotations,
            value: alert.value.is_finite().then_some(alert.value),
            line: present(alert.line),
            condition: alert.condition,
            resource_id: alert.resource_id,
            starts_at: instant::rfc3339(alert.starts_unix_nano),
            ends_at: instant::rfc3339_or_none(alert.ends_unix_nano),
            ended_reason: present(alert.ended_reason),
            ended_by: present(alert.ended_by),
            updated_at: instant::rfc3339(alert.updated_unix_nano),
            receivers: alert.receivers,
            occurrences: alert.occurrences,
            delivery: alert.delivery,
            deliveries: alert.deliveries.into_iter().map(ReceiverNews::from).collect(),
            late: alert.late,
        }
    }
}

#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AlertState {
    Firing,
    Resolved,
}

impl AlertState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// Both when left out
    #[param(inline)]
    state: Option<AlertState>,
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
        state: parameters.state.map_or("", AlertState::as_str).to_owned(),
        rule_id: parameters.rule_id.unwrap_or_default(),
        r#match: parameters.r#match.unwrap_or_default(),
        limit: limit(parameters.limit)?,
        cursor: parameters.cursor.unwrap_or_default(),
    };
    let answer =
        state.clients.alerts.clone().list_alerts(caller.request(Permission::AlertsRead, request)?).await?.into_inner();
    Ok(Page::new(answer.items, answer.next))
}

/// End an alert by hand; its receivers are told. The rule may fire it again once its condition has been over. Needs
/// `alerts:write`.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/resolve", tag = "alerts", params(("id" = String, Path)),
    responses((status = 200, body = Alert), (status = 404)))]
pub(crate) async fn resolve(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id<String>,
) -> Result<Json<Alert>, Fault> {
    let request = caller.request(Permission::AlertsWrite, ResolveAlertRequest { id })?;
    Ok(Json(state.clients.alerts.clone().resolve_alert(request).await?.into_inner().into()))
}
