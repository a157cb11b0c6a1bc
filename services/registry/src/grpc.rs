//! The gRPC API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use authn::{Permission, Scope, Verifier};
use fault::Fault;
use proto::registry::registry_server::Registry;
use proto::registry::{GetResourceRequest, ListResourcesRequest, ListResourcesResponse, Resource};
use selector::{Op, Selector};
use tonic::{Request, Response, Status};

use crate::heartbeats::Heartbeats;
use crate::presence::Nanos;
use crate::roster::Key;
use crate::store::{Narrow, Store};

/// How many resources one call may look through; where few are chosen the page ends early, with a cursor to go on.
const MAX_LOOKED_AT: usize = 10_000;
const CHUNK: usize = 1_000;
/// Bytes of a selector's automata with which a call may look through all of that; heavier ones through less.
const LIGHT: usize = 32 << 10;
/// How long matching may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// `sightline.registry.v1.Registry`
pub struct Api {
    pub store: Store,
    pub heartbeats: Heartbeats,
    pub verifier: Verifier,
}

#[tonic::async_trait]
impl Registry for Api {
    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::ResourcesRead)?;
        let page = self.page(&caller.scope(), request.get_ref()).await?;
        Ok(Response::new(page))
    }

    async fn get_resource(&self, request: Request<GetResourceRequest>) -> Result<Response<Resource>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::ResourcesRead)?;
        let id = &request.get_ref().id;
        // Postgres takes no NUL; what cannot be an id is an id that nothing has.
        let found = if id.contains('\0') { None } else { self.store.get(&caller.scope(), id).await? };
        let mut resource = found.ok_or_else(|| Fault::not_found("resource", id))?.resource;
        self.see(&caller.tenant, std::slice::from_mut(&mut resource)).await;
        Ok(Response::new(resource.into()))
    }
}

impl Api {
    async fn page(&self, scope: &Scope, request: &ListResourcesRequest) -> fault::Result<ListResourcesResponse> {
        let asked = Selector::read(&request.r#match).await;
        let selector = scope.narrow(&asked.map_err(|error| Fault::field("match", error.to_string()))?);
        let limit = page::limit(request.limit)?;
        let mut after = page::place(&request.cursor, |id| Some(id.to_owned()))?.unwrap_or_default();
        let Some(narrow) = narrow(&selector) else { return Ok(ListResourcesResponse::default()) };
        let (most, selector) = (most_looked_at(&selector), Arc::new(selector));
        let end = Instant::now() + PATIENCE;
        let (mut items, mut looked_at) = (Vec::new(), 0);
        // Begins with what a page needs where everything is chosen, and goes on with more.
        let mut chunk = limit + 1;
        let next = loop {
            let asked = i64::try_from(chunk).unwrap_or(i64::MAX);
            let found = self.store.list(scope, &narrow, &after, asked).await?;
            looked_at += found.len();
            let (is_last, last) = (found.len() < chunk, found.last().map(|listed| listed.resource.id.clone()));
            let sifted = selector.sift(found, end, |listed, name| listed.resource.label(&listed.facts, name)).await;
            let chosen = sifted.map_err(|_| ::store::too_slow())?.into_iter().filter(|(_, chosen)| *chosen);
            items.extend(chosen.map(|(listed, _)| listed.resource));
            if items.len() > limit {
                items.truncate(limit);
                break items.last().map(|item: &crate::resource::Resource| item.id.clone());
            }
            if is_last {
                break None;
            }
            after = last.unwrap_or(after);
            if looked_at >= most {
                break Some(after);
            }
            chunk = CHUNK;
        };
        self.see(scope.tenant(), &mut items).await;
        let next = next.map(|place| page::cursor(&place)).unwrap_or_default();
        Ok(ListResourcesResponse { items: items.into_iter().map(Resource::from).collect(), next })
    }

    /// Puts the last sign of life into `resources`, which the store has only as of the last change of their status.
    async fn see(&self, tenant: &str, resources: &mut [crate::resource::Resource]) {
        if resources.is_empty() {
            return;
        }
        let tenant: Arc<str> = tenant.into();
        let key =
            |resource: &crate::resource::Resource| Key { tenant: Arc::clone(&tenant), id: resource.id.as_str().into() };
        let keys: Vec<Key> = resources.iter().map(key).collect();
        let read = async {
            let now = self.heartbeats.now().await?;
            anyhow::Ok((now, self.heartbeats.last(&keys).await?))
        };
        // Without Redis the list is as good as the store: late, and none the less a list.
        let Ok((now, last)) = read.await else { return };
        for (resource, seen) in resources.iter_mut().zip(last) {
            resource.last_seen = resource.last_seen.max(seen.map_or(Nanos::MIN, |seen| seen.min(now)));
        }
    }
}

fn most_looked_at(selector: &Selector) -> usize {
    let heavy = selector.weight() / LIGHT;
    (MAX_LOOKED_AT / (1 + heavy)).max(CHUNK)
}

/// What Postgres can decide alone; nothing where nothing can be chosen. The selector is applied afterwards all the same.
fn narrow(selector: &Selector) -> Option<Narrow> {
    let mut narrow = Narrow::default();
    for matcher in selector.matchers().iter().filter(|matcher| matcher.op == Op::Equal) {
        let value = &matcher.value;
        // Postgres holds no NUL, so nothing is equal to it.
        if value.contains('\0') {
            return None;
        }
        let place = match matcher.label.as_str() {
            "id" => &mut narrow.id,
            "kind" => &mut narrow.kind,
            "name" => &mut narrow.name,
            "status" => &mut narrow.status,
            // Empty, it may also be a label's.
            "agent_id" if !value.is_empty() => &mut narrow.agent_id,
            "parent_id" => &mut narrow.parent_id,
            // What is missing reads as empty, which no index knows.
            label if !value.is_empty() && label != "agent_id" => {
                narrow.facts.entry(label.to_owned()).or_insert_with(|| value.clone());
                continue;
            }
            _ => continue,
        };
        place.get_or_insert_with(|| value.clone());
    }
    Some(narrow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowed(text: &str) -> Option<Narrow> {
        narrow(&Selector::parse(text).unwrap())
    }

    #[test]
    fn postgres_narrows_by_whatever_must_be_equal() {
        let text = r#"{kind="host",status!="offline",env="prod",name=~"web.*",host.name="web-1",zone="",agent_id=""}"#;
        let facts = [("env", "prod"), ("host_name", "web-1")];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(narrowed(text), Some(Narrow { kind: Some("host".into()), facts, ..Narrow::default() }));
        assert_eq!(narrowed("{env=\"a\\x00b\"}"), None);
    }

    #[test]
    fn a_heavy_selector_looks_through_less() {
        let most = |text: &str| most_looked_at(&Selector::parse(text).unwrap());
        assert_eq!(most(r#"{env=~"prod|stage",name!=""}"#), MAX_LOOKED_AT);
        assert!(most(r"{a=~`\pL\pL`,b=~`\pL\pL`,c=~`\pL\pL`,d=~`\pL\pL`}") < MAX_LOOKED_AT / 2);
    }
}
