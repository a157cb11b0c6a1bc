//! The gRPC API.

use authn::{Permission, Verifier};
use data_encoding::BASE64URL_NOPAD;
use fault::Fault;
use proto::registry::registry_server::Registry;
use proto::registry::{GetResourceRequest, ListResourcesRequest, ListResourcesResponse, Resource};
use selector::{Op, Selector};
use tonic::{Request, Response, Status};

use crate::store::{Narrow, Store};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
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
        let limit = limit(request.limit)?;
        let mut after = read_cursor(&request.cursor)?;
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
                    return Ok(ListResourcesResponse { items, next: cursor(&after) });
                } else {
                    after = resource.id.clone();
                    items.push(resource.into());
                }
            }
            if last_chunk {
                return Ok(ListResourcesResponse { items, next: String::new() });
            }
            if looked_at >= MAX_LOOKED_AT {
                return Ok(ListResourcesResponse { items, next: cursor(&after) });
            }
        }
    }
}

fn limit(asked: u32) -> fault::Result<usize> {
    match usize::try_from(asked).unwrap_or(usize::MAX) {
        0 => Ok(DEFAULT_LIMIT),
        limit if limit <= MAX_LIMIT => Ok(limit),
        _ => Err(Fault::field("limit", format!("write 1 to {MAX_LIMIT}"))),
    }
}

fn cursor(after: &str) -> String {
    BASE64URL_NOPAD.encode(after.as_bytes())
}

fn read_cursor(cursor: &str) -> fault::Result<String> {
    let decoded = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let wrong = || Fault::field("cursor", "take it from `next` of the page before, unchanged");
    decoded.filter(|after| !after.contains('\0')).ok_or_else(wrong)
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

    #[test]
    fn a_cursor_reads_back_and_anything_else_is_refused() {
        assert_eq!(read_cursor(&cursor("host-1")).unwrap(), "host-1");
        assert_eq!(read_cursor("").unwrap(), "");
        assert!(read_cursor("not a cursor").is_err());
        assert!(read_cursor(&BASE64URL_NOPAD.encode(b"a\0b")).is_err());
    }

    #[test]
    fn a_page_has_a_hundred_items_unless_asked_and_a_thousand_at_most() {
        assert_eq!(limit(0).unwrap(), 100);
        assert_eq!(limit(1_000).unwrap(), 1_000);
        assert!(limit(1_001).is_err());
    }
}
