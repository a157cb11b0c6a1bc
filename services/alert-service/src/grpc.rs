//! Answers who is firing: decode, ask, encode.

use authn::{Permission, Verifier};
use fault::Fault;
use proto::alerts::alerts_server::Alerts;
use proto::alerts::{Alert, ListAlertsRequest, ListAlertsResponse, ResolveAlertRequest};
use selector::{Op, Selector};
use sqlx::PgPool;
use tonic::{Request, Response, Status};

use crate::alert::State;
use crate::store::{self, Filter, Listed};
use crate::wire;

/// Rows read at a time while a selector is applied to them.
const SCAN: usize = 500;

/// Rows read for one page at most; a page that ends here is short, with a cursor that goes on.
const SCAN_MOST: usize = 20 * SCAN;

/// `sightline.alerts.v1.Alerts`.
pub struct AlertsApi {
    /// The service's tables.
    pub pool: PgPool,
    /// Tells who is asking.
    pub verifier: Verifier,
}

#[tonic::async_trait]
impl Alerts for AlertsApi {
    async fn list_alerts(&self, request: Request<ListAlertsRequest>) -> Result<Response<ListAlertsResponse>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::AlertsRead)?;
        let request = request.into_inner();
        let limit = page::limit(request.limit)?;
        let after = page::place(&request.cursor, place)?;
        let selector = Selector::parse(&request.r#match).map_err(|error| Fault::field("match", error.to_string()))?;
        let filter = filter(caller.tenant, &request, &selector)?;
        Ok(Response::new(self.find(&filter, &selector, after, limit).await?))
    }

    async fn resolve_alert(&self, _: Request<ResolveAlertRequest>) -> Result<Response<Alert>, Status> {
        Err(Status::unimplemented(""))
    }
}

impl AlertsApi {
    async fn find(
        &self,
        filter: &Filter,
        selector: &Selector,
        mut after: Option<(u64, String)>,
        limit: usize,
    ) -> fault::Result<ListAlertsResponse> {
        let mut items = Vec::new();
        // One more than asked for tells whether there is a next page.
        let step = if selector.is_everything() { limit + 1 } else { SCAN };
        for _ in 0..SCAN_MOST.div_ceil(step) {
            let rows = i64::try_from(step).unwrap_or(i64::MAX);
            let rows = store::alerts(&self.pool, filter, after.as_ref(), rows).await.map_err(::store::fault)?;
            let is_last = rows.len() < step;
            for Listed { alert, delivery } in rows {
                let place = (alert.starts, alert.id.clone());
                if selector.matches(|label| alert.labels.get(label).map(String::as_str)) {
                    if items.len() == limit {
                        return Ok(answer(items, after));
                    }
                    items.push(wire::alert(alert, &delivery));
                }
                after = Some(place);
            }
            if is_last {
                return Ok(answer(items, None));
            }
        }
        Ok(answer(items, after))
    }
}

fn answer(items: Vec<proto::alerts::Alert>, next: Option<(u64, String)>) -> ListAlertsResponse {
    let next = next.map_or_else(String::new, |(starts, id)| page::cursor(&format!("{starts}:{id}")));
    ListAlertsResponse { items, next }
}

/// Behind an alert with this start and id.
fn place(text: &str) -> Option<(u64, String)> {
    let (starts, id) = text.split_once(':')?;
    Some((starts.parse().ok()?, id.to_owned()))
}

/// What Postgres can sort out by an index; the selector is applied to the rest.
fn filter(tenant: String, request: &ListAlertsRequest, selector: &Selector) -> fault::Result<Filter> {
    let state = match request.state.as_str() {
        "" => None,
        name => Some(State::named(name).ok_or_else(|| Fault::field("state", "write `firing` or `resolved`"))?),
    };
    if request.rule_id.contains('\0') || request.r#match.contains('\0') {
        return Err(Fault::invalid("invalid_text", "take the NUL characters out"));
    }
    let matchers = selector.matchers().iter();
    let exact = matchers.filter(|matcher| matcher.op == Op::Equal && !matcher.value.is_empty());
    let labels = exact.map(|matcher| (matcher.label.clone(), matcher.value.clone())).collect();
    Ok(Filter { tenant, state, rule_id: request.rule_id.clone(), labels })
}
