//! Everything that reports.

use std::collections::HashMap;

use authn::Permission;
use axum::Json;
use axum::extract::State;
use fault::Fault;
use proto::registry::{GetResourceRequest, ListResourcesRequest};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::body::{Id, Page, Parameters, limit};
use crate::instant;
use crate::state::{AppState, Caller};

#[derive(Serialize, ToSchema)]
pub(crate) struct Resource {
    /// Derived from kind and identifying labels: the same for ever
    id: String,
    /// host, container, pod, app, agent, syslog, device or otel
    kind: String,
    name: String,
    /// online, idle or offline
    status: String,
    /// From telemetry
    labels: HashMap<String, String>,
    /// From people
    tags: HashMap<String, String>,
    first_seen: String,
    last_seen: String,
    agent_id: Option<String>,
    parent_id: Option<String>,
}

impl From<proto::registry::Resource> for Resource {
    fn from(resource: proto::registry::Resource) -> Self {
        let present = |text: String| (!text.is_empty()).then_some(text);
        Self {
            id: resource.id,
            kind: resource.kind,
            name: resource.name,
            status: resource.status,
            labels: resource.labels,
            tags: resource.tags,
            first_seen: instant::rfc3339(resource.first_seen_unix_nano),
            last_seen: instant::rfc3339(resource.last_seen_unix_nano),
            agent_id: present(resource.agent_id),
            parent_id: present(resource.parent_id),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// A selector, for example `{kind="host",status!="offline"}`
    r#match: Option<String>,
    /// 1 to 1000; 100 when left out
    limit: Option<u32>,
    cursor: Option<String>,
}

/// List resources. Needs `resources:read`.
#[utoipa::path(get, path = "/api/v1/resources", tag = "resources", params(ListParameters),
    responses((status = 200, body = Page<Resource>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Page<Resource>>, Fault> {
    let request = ListResourcesRequest {
        r#match: parameters.r#match.unwrap_or_default(),
        limit: limit(parameters.limit)?,
        cursor: parameters.cursor.unwrap_or_default(),
    };
    let answer = state
        .clients
        .registry
        .clone()
        .list_resources(caller.request(Permission::ResourcesRead, request)?)
        .await?
        .into_inner();
    Ok(Page::new(answer.items, answer.next))
}

/// One resource. Needs `resources:read`.
#[utoipa::path(get, path = "/api/v1/resources/{id}", tag = "resources", params(("id" = String, Path)),
    responses((status = 200, body = Resource), (status = 404)))]
pub(crate) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id<String>,
) -> Result<Json<Resource>, Fault> {
    let request = caller.request(Permission::ResourcesRead, GetResourceRequest { id })?;
    let answer = state.clients.registry.clone().get_resource(request).await?;
    Ok(Json(answer.into_inner().into()))
}
