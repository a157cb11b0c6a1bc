//! Log search.

use authn::Permission;
use axum::Json;
use axum::extract::State;
use fault::Fault;
use proto::logs::SearchLogsRequest;
use proto::logs::search_logs_request::Order;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::body::{Page, Parameters, limit};
use crate::instant;
use crate::state::{AppState, Caller};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchParameters {
    /// An hour before `to` when left out
    from: Option<String>,
    /// Exclusive; now when left out
    to: Option<String>,
    /// A selector over the record's resource, for example `{host_name="web-1"}`
    r#match: Option<String>,
    /// Lowest severity: trace, debug, info, warn, error or fatal
    level: Option<String>,
    /// Case-sensitive substring of the body
    contains: Option<String>,
    /// Regular expression over the body
    regex: Option<String>,
    /// `desc` (newest first) or `asc`; `desc` when left out
    #[param(inline)]
    order: Option<Direction>,
    /// 1 to 1000; 100 when left out
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    Asc,
    Desc,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LogRecord {
    /// The same for ever
    id: String,
    time: String,
    observed_time: String,
    level: String,
    /// OpenTelemetry's severity number, 0 when unknown
    severity_number: i32,
    body: String,
    resource_id: String,
    host_name: String,
    service_name: String,
    /// Name of the OTLP scope
    source: String,
    attributes: Value,
    resource: Value,
    trace_id: Option<String>,
    span_id: Option<String>,
}

impl From<proto::logs::LogRecord> for LogRecord {
    fn from(record: proto::logs::LogRecord) -> Self {
        let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
        let present = |text: String| (!text.is_empty()).then_some(text);
        Self {
            attributes: json(&record.attributes_json),
            resource: json(&record.resource_json),
            id: record.id,
            time: instant::rfc3339(record.time_unix_nano),
            observed_time: instant::rfc3339(record.observed_unix_nano),
            level: record.level,
            severity_number: record.severity_number,
            body: record.body,
            resource_id: record.resource_id,
            host_name: record.host_name,
            service_name: record.service_name,
            source: record.source,
            trace_id: present(record.trace_id),
            span_id: present(record.span_id),
        }
    }
}

/// Search logs. Needs `logs:read`.
#[utoipa::path(get, path = "/api/v1/logs", tag = "logs", params(SearchParameters),
    responses((status = 200, body = Page<LogRecord>)))]
pub(crate) async fn search(
    State(state): State<AppState>,
    caller: Caller,
    Parameters(parameters): Parameters<SearchParameters>,
) -> Result<Json<Page<LogRecord>>, Fault> {
    let (from, to) = instant::range(parameters.from.as_deref(), parameters.to.as_deref())?;
    let order = match parameters.order {
        Some(Direction::Asc) => Order::OldestFirst,
        Some(Direction::Desc) | None => Order::NewestFirst,
    };
    let request = SearchLogsRequest {
        from_unix_nano: from,
        to_unix_nano: to,
        r#match: parameters.r#match.unwrap_or_default(),
        level: parameters.level.unwrap_or_default(),
        contains: parameters.contains.unwrap_or_default(),
        regex: parameters.regex.unwrap_or_default(),
        order: order.into(),
        limit: limit(parameters.limit)?,
        cursor: parameters.cursor.unwrap_or_default(),
    };
    let answer =
        state.clients.logs.clone().search_logs(caller.request(Permission::LogsRead, request)?).await?.into_inner();
    Ok(Page::new(answer.items, answer.next))
}
