//! Rules: documents that people edit.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fault::Fault;
use proto::rules::rule_document::Subject;
use proto::rules::{
    CreateRuleRequest, DeleteRuleRequest, GetRuleRequest, ListRulesRequest, RuleDocument, UpdateRuleRequest,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::body::{Body, Page, Parameters, limit};
use crate::instant;
use crate::state::{AppState, Caller};

/// What fires when.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// Unique in its tenant
    name: String,
    /// info, warning, error or critical
    level: String,
    /// A selector over series labels (metric rules) or resource labels (log rules); `{}` takes all
    #[serde(default)]
    r#match: String,
    /// Metric name, dotted or with underscores; either this or `log`
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
    /// Either this or `metric`
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogCondition>,
    /// Metric rules: a comparison such as `> 90`
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
    /// Metric rules: how long the condition must hold before it fires, such as `30s`
    #[serde(skip_serializing_if = "Option::is_none")]
    r#for: Option<String>,
    /// Log rules: how long after the last matching line the alert resolves; `5m` when left out
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<String>,
    #[serde(default)]
    labels: HashMap<String, String>,
    #[serde(default)]
    annotations: HashMap<String, String>,
    /// Names of receivers
    #[serde(default)]
    receivers: Vec<String>,
    #[serde(default)]
    disabled: bool,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogCondition {
    /// Case-sensitive substring of the line
    contains: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Rule {
    id: String,
    /// Rises by one with every change; also the `ETag`
    version: u64,
    created_at: String,
    updated_at: String,
    #[serde(flatten)]
    document: Document,
}

impl Document {
    fn into_message(self) -> Result<RuleDocument, Fault> {
        let subject = match (self.metric, self.log) {
            (Some(metric), None) => Subject::Metric(metric),
            (None, Some(log)) => Subject::Log(proto::rules::LogCondition { contains: log.contains }),
            _ => {
                return Err(Fault::field("metric", "a rule watches either `metric` or `log`; give exactly one"));
            }
        };
        let millis = |name, text: Option<String>| text.map_or(Ok(0), |text| instant::millis(name, &text));
        Ok(RuleDocument {
            name: self.name,
            level: self.level,
            r#match: self.r#match,
            subject: Some(subject),
            condition: self.condition.unwrap_or_default(),
            for_millis: millis("for", self.r#for)?,
            hold_millis: millis("hold", self.hold)?,
            labels: self.labels,
            annotations: self.annotations,
            receivers: self.receivers,
            disabled: self.disabled,
            ..RuleDocument::default()
        })
    }
}

impl From<RuleDocument> for Document {
    fn from(message: RuleDocument) -> Self {
        let (metric, log) = match message.subject {
            Some(Subject::Metric(metric)) => (Some(metric), None),
            Some(Subject::Log(log)) => (None, Some(LogCondition { contains: log.contains })),
            None => (None, None),
        };
        let duration = |millis: u64| (millis != 0).then(|| instant::duration(millis));
        Self {
            name: message.name,
            level: message.level,
            r#match: message.r#match,
            metric,
            log,
            condition: (!message.condition.is_empty()).then_some(message.condition),
            r#for: duration(message.for_millis),
            hold: duration(message.hold_millis),
            labels: message.labels,
            annotations: message.annotations,
            receivers: message.receivers,
            disabled: message.disabled,
        }
    }
}

impl From<proto::rules::Rule> for Rule {
    fn from(rule: proto::rules::Rule) -> Self {
        Self {
            id: rule.id,
            version: rule.version,
            created_at: instant::rfc3339(rule.created_unix_nano),
            updated_at: instant::rfc3339(rule.updated_unix_nano),
            document: rule.document.unwrap_or_default().into(),
        }
    }
}

fn answer(status: StatusCode, rule: proto::rules::Rule) -> Response {
    let rule = Rule::from(rule);
    (status, [(header::ETAG, format!("\"{}\"", rule.version))], Json(rule)).into_response()
}

/// The version in `If-Match`; 0 when the caller takes any.
fn expected_version(headers: &HeaderMap) -> Result<u64, Fault> {
    match headers.get(header::IF_MATCH).map(|value| value.to_str().unwrap_or_default()) {
        None | Some("*") => Ok(0),
        Some(tag) => tag
            .trim_matches('"')
            .parse()
            .map_err(|_| Fault::invalid("invalid_if_match", "If-Match takes the ETag that the rule was read with")),
    }
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<String, Fault> {
    match headers.get("idempotency-key").map(|value| value.to_str().unwrap_or_default()) {
        None => Ok(String::new()),
        Some(key) if !key.is_empty() && key.len() <= 128 => Ok(key.to_owned()),
        Some(_) => Err(Fault::invalid("invalid_idempotency_key", "Idempotency-Key takes 1 to 128 ASCII characters")),
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

/// List rules. Needs `rules:read`.
#[utoipa::path(get, path = "/api/v1/rules", tag = "rules", params(ListParameters),
    responses((status = 200, body = Page<Rule>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Page<Rule>>, Fault> {
    let request = ListRulesRequest { limit: limit(parameters.limit)?, cursor: parameters.cursor.unwrap_or_default() };
    let answer = state.clients.rules.clone().list_rules(caller.request(request)).await?.into_inner();
    Ok(Page::new(answer.items, answer.next))
}

/// Create a rule. It is in force within a second. Needs `rules:write`.
#[utoipa::path(post, path = "/api/v1/rules", tag = "rules", request_body = Document,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key again answers the first rule")),
    responses((status = 201, body = Rule), (status = 400), (status = 409, description = "The name is taken")))]
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Body(document): Body<Document>,
) -> Result<Response, Fault> {
    let idempotency_key = idempotency_key(&headers)?;
    let request = CreateRuleRequest { document: Some(document.into_message()?), idempotency_key };
    let rule = state.clients.rules.clone().create_rule(caller.request(request)).await?.into_inner();
    Ok(answer(StatusCode::CREATED, rule))
}

/// One rule. Needs `rules:read`.
#[utoipa::path(get, path = "/api/v1/rules/{id}", tag = "rules", params(("id" = String, Path)),
    responses((status = 200, body = Rule), (status = 404)))]
pub(crate) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let rule = state.clients.rules.clone().get_rule(caller.request(GetRuleRequest { id })).await?.into_inner();
    Ok(answer(StatusCode::OK, rule))
}

/// Replace a rule. Needs `rules:write`.
#[utoipa::path(put, path = "/api/v1/rules/{id}", tag = "rules", request_body = Document,
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that the rule was read with")),
    responses((status = 200, body = Rule), (status = 404), (status = 412, description = "The rule changed since")))]
pub(crate) async fn update(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(document): Body<Document>,
) -> Result<Response, Fault> {
    let expected_version = expected_version(&headers)?;
    let request = UpdateRuleRequest { id, document: Some(document.into_message()?), expected_version };
    let rule = state.clients.rules.clone().update_rule(caller.request(request)).await?.into_inner();
    Ok(answer(StatusCode::OK, rule))
}

/// Delete a rule; what it has firing resolves. Needs `rules:write`.
#[utoipa::path(delete, path = "/api/v1/rules/{id}", tag = "rules",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that the rule was read with")),
    responses((status = 204), (status = 404), (status = 412)))]
pub(crate) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    let request = DeleteRuleRequest { id, expected_version: expected_version(&headers)? };
    state.clients.rules.clone().delete_rule(caller.request(request)).await?;
    Ok(StatusCode::NO_CONTENT)
}
