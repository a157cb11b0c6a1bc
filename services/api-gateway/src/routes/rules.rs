//! Rules: documents that people edit.

mod document;

use std::time::Duration;

use authn::{Permission, Scope};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fault::{Fault, Field};
use proto::dispatch::MissingReceiversRequest;
use proto::rules::{CreateRuleRequest, DeleteRuleRequest, GetRuleRequest, ListRulesRequest, UpdateRuleRequest};
use selector::Selector;
use series::WantedName;
use tonic::Code;

use crate::answer;
use crate::body::{Body, Id, Page, Paging, Parameters, limit};
use crate::conditions::{etag, expected_version, idempotency_key};
use crate::state::{AppState, Caller};
use document::{Rule, RuleDraft};

/// Beyond these nobody waits for a count that only informs.
const LARGEST_COUNT: usize = 64 << 10;
const LONGEST_COUNT: Duration = Duration::from_secs(2);

fn respond(status: StatusCode, rule: Rule) -> Response {
    (status, [(header::ETAG, etag(rule.version()))], Json(rule)).into_response()
}

/// Refuses receivers that nobody has made: their pages would reach nobody.
async fn check_receivers(state: &AppState, caller: &Caller, names: &[String]) -> Result<(), Fault> {
    if names.is_empty() {
        return Ok(());
    }
    let request = caller.request(Permission::RulesWrite, MissingReceiversRequest { names: names.to_vec() })?;
    let missing = match state.clients.dispatch.clone().missing_receivers(request).await {
        Ok(answer) => answer.into_inner().names,
        // The dispatcher of the release before does not say.
        Err(status) if status.code() == Code::Unimplemented => return Ok(()),
        Err(status) => return Err(status.into()),
    };
    let fields = names.iter().enumerate().filter(|(_, name)| missing.contains(name)).map(|(index, name)| Field {
        path: format!("receivers[{index}]"),
        message: format!("there is no receiver `{name}`; create it first"),
    });
    let fields: Vec<Field> = fields.collect();
    if fields.is_empty() { Ok(()) } else { Err(Fault::fields(fields)) }
}

/// How many series a metric rule is about that the store has now; nothing where that cannot be said.
async fn matches(state: &AppState, scope: &Scope, metric: Option<&str>, text: &str) -> Option<u64> {
    let name = serde_json::Value::from(WantedName::new(metric?).regex());
    let selector = Selector::read(text).await.ok()?.to_string();
    let more = selector.trim_start_matches('{').trim_end_matches('}');
    let comma = if more.is_empty() { "" } else { "," };
    let query = format!("count({{__name__=~{name}{comma}{more}}})");
    let asked = state.metrics_store.read(scope, "query", vec![("query".to_owned(), query)], LARGEST_COUNT);
    answer::count(&tokio::time::timeout(LONGEST_COUNT, asked).await.ok()?.ok()?)
}

/// List rules. Needs `rules:read`.
#[utoipa::path(get, path = "/api/v1/rules", tag = "rules", params(Paging),
    responses((status = 200, body = Page<Rule>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Parameters(paging): Parameters<Paging>,
) -> Result<Json<Page<Rule>>, Fault> {
    let request = ListRulesRequest { limit: limit(paging.limit)?, cursor: paging.cursor.unwrap_or_default() };
    let request = caller.request(Permission::RulesRead, request)?;
    let answer = state.clients.rules.clone().list_rules(request).await?.into_inner();
    Ok(Page::new(answer.items, answer.next))
}

/// Create a rule. It is in force within a second. The answer says how many series it matches now. Needs `rules:write`.
#[utoipa::path(post, path = "/api/v1/rules", tag = "rules", request_body = RuleDraft,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key again answers the first rule")),
    responses((status = 201, body = Rule, headers(("ETag" = String))), (status = 409, description = "The name is taken, or the key was used for another rule")))]
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Body(draft): Body<RuleDraft>,
) -> Result<Response, Fault> {
    let document = draft.into_message()?;
    let request = CreateRuleRequest { document: Some(document), idempotency_key: idempotency_key(&headers)? };
    let receivers = request.document.as_ref().map(|document| document.receivers.clone()).unwrap_or_default();
    let request = caller.request(Permission::RulesWrite, request)?;
    check_receivers(&state, &caller, &receivers).await?;
    let rule = Rule::from(state.clients.rules.clone().create_rule(request).await?.into_inner());
    let matches = matches(&state, &caller.0.scope(), rule.metric(), rule.selector()).await;
    Ok(respond(StatusCode::CREATED, rule.matching(matches)))
}

/// One rule, and how many series or resources it is bound to now. Needs `rules:read`.
#[utoipa::path(get, path = "/api/v1/rules/{id}", tag = "rules", params(("id" = String, Path)),
    responses((status = 200, body = Rule, headers(("ETag" = String))), (status = 404)))]
pub(crate) async fn get(State(state): State<AppState>, caller: Caller, Id(id): Id<String>) -> Result<Response, Fault> {
    let request = caller.request(Permission::RulesRead, GetRuleRequest { id })?;
    let rule = state.clients.rules.clone().get_rule(request).await?.into_inner();
    Ok(respond(StatusCode::OK, rule.into()))
}

/// Replace a rule. What it has firing goes on where only its presentation changes. Needs `rules:write`.
#[utoipa::path(put, path = "/api/v1/rules/{id}", tag = "rules", request_body = RuleDraft,
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that the rule was read with, or `*`")),
    responses((status = 200, body = Rule, headers(("ETag" = String))), (status = 404), (status = 409, description = "The name is taken"),
        (status = 412, description = "The rule changed since")))]
pub(crate) async fn update(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id<String>,
    headers: HeaderMap,
    Body(draft): Body<RuleDraft>,
) -> Result<Response, Fault> {
    let expected_version = expected_version(&headers)?;
    let document = draft.into_message()?;
    let receivers = document.receivers.clone();
    let request = UpdateRuleRequest { id, document: Some(document), expected_version };
    let request = caller.request(Permission::RulesWrite, request)?;
    check_receivers(&state, &caller, &receivers).await?;
    let rule = state.clients.rules.clone().update_rule(request).await?.into_inner();
    Ok(respond(StatusCode::OK, rule.into()))
}

/// Delete a rule; what it has firing resolves. Needs `rules:write`.
#[utoipa::path(delete, path = "/api/v1/rules/{id}", tag = "rules",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that the rule was read with, or `*`")),
    responses((status = 204), (status = 404), (status = 412, description = "The rule changed since")))]
pub(crate) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    let request = DeleteRuleRequest { id, expected_version: expected_version(&headers)? };
    let request = caller.request(Permission::RulesWrite, request)?;
    state.clients.rules.clone().delete_rule(request).await?;
    Ok(StatusCode::NO_CONTENT)
}
