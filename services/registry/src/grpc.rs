//! The gRPC API.

use authn::{Permission, Verifier};
use fault::Fault;
use proto::registry::registry_server::Registry;
use proto::registry::{GetResourceRequest, ListResourcesRequest, ListResourcesResponse, Resource};
use selector::{Op, Selector};
use tonic::{Request, Response, Status};

use crate::store::{Narrow, Store};

/// How many resources one call may look through; where few are chosen the page ends early, with a cursor to go on.
const MAX_LOOKED_AT: usize = 10_000;
const CHUNK: usize = 1_000;

/// `sightline.registry.v1.Registry`
pub struct Api {
    pub store: Store,
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
        let page = self.page(&caller.tenant, request.get_ref()).await?;
        Ok(Response::new(page))
    }

    async fn get_resource(&self, request: Request<GetResourceRequest>) -> Result<Response<Resource>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::ResourcesRead)?;
        let id = &request.get_ref().id;
        // Postgres takes no NUL; what cannot be an id is an id that nothing has.
        let found = if id.contains('\0') { None } else { self.store.get(&caller.tenant, id).await? };
        let resource = found.ok_or_else(|| Fault::not_found("resource", id))?;
        Ok(Response::new(resource.into()))
    }
}

impl Api {
    async fn page(&self, tenant: &str, request: &ListResourcesRequest) -> fault::Result<ListResourcesResponse> {
        let selector = Selector::parse(&request.r#match).map_err(|error| Fault::field("match", error.to_string()))?;
        let limit = page::limit(request.limit)?;
        let mut after = page::place(&request.cursor, |id| Some(id.to_owned()))?.unwrap_or_default();
        let narrow = narrow(&selector);
        let (mut items, mut looked_at) = (Vec::new(), 0);
        loop {
            let chunk = if selector.is_everything() { limit + 1 - items.len() } else { CHUNK };
            let asked = i64::try_from(chunk).unwrap_or(i64::MAX);
            let found = self.store.list(tenant, &narrow, &after, asked).await?;
            let last_chunk = found.len() < chunk;
            looked_at += found.len();
            for resource in found {
                if !selector.matches(|label| resource.label(label)) {
                    after = resource.id;
                } else if items.len() == limit {
                    // There is one more, so there is a next page.
                    return Ok(ListResourcesResponse { items, next: page::cursor(&after) });
                } else {
                    after = resource.id.clone();
                    items.push(resource.into());
                }
            }
            if last_chunk {
                return Ok(ListResourcesResponse { items, next: String::new() });
            }
            if looked_at >= MAX_LOOKED_AT {
                return Ok(ListResourcesResponse { items, next: page::cursor(&after) });
            }
        }
    }
}

/// What Postgres can decide alone. The selector is applied afterwards all the same.
fn narrow(selector: &Selector) -> Narrow {
    let mut narrow = Narrow::default();
    for matcher in selector.matchers().iter().filter(|matcher| matcher.op == Op::Equal) {
        let place = match matcher.label.as_str() {
            "kind" => &mut narrow.kind,
            "name" => &mut narrow.name,
            "status" => &mut narrow.status,
            "id" => &mut narrow.id,
            _ => continue,
        };
        if !matcher.value.contains('\0') {
            place.get_or_insert_with(|| matcher.value.clone());
        }
    }
    narrow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_narrows_by_what_is_equal_and_its_own() {
        let selector = Selector::parse(r#"{kind="host",status!="offline",env="prod",name=~"web.*"}"#).unwrap();
        assert_eq!(narrow(&selector), Narrow { kind: Some("host".into()), ..Narrow::default() });
    }
}
