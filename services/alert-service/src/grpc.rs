//! Answers who is firing, and ends alerts by hand: decode, ask, encode.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::store::Pools;
use authn::{Permission, Scope, Verifier};
use fault::Fault;
use proto::alerts::alerts_server::Alerts;
use proto::alerts::{Alert as Wire, ListAlertsRequest, ListAlertsResponse, ResolveAlertRequest};
use selector::{Op, Selector};
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

use crate::alert::{Alert, end_by_hand};
use crate::changes::{Cause, Changes};
use crate::store::deliveries;
use crate::store::listing::{self, Filter};
use crate::transition::{FIRING, RESOLVED};
use crate::wire;

/// Rows read at a time while a selector is applied to them.
const SCAN: usize = 500;

/// Rows read for one page at most; a page that ends here is short, with a cursor that goes on.
const SCAN_MOST: usize = 20 * SCAN;
/// How long matching may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// `sightline.alerts.v1.Alerts`.
pub struct AlertsApi {
    /// The service's tables.
    pub pools: Pools,
    /// Tells who is asking.
    pub verifier: Verifier,
    /// Wakes the outbox.
    pub committed: Arc<Notify>,
}

#[tonic::async_trait]
impl Alerts for AlertsApi {
    async fn list_alerts(&self, request: Request<ListAlertsRequest>) -> Result<Response<ListAlertsResponse>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::AlertsRead)?;
        let request = request.into_inner();
        let limit = page::limit(request.limit)?;
        let after = page::place(&request.cursor, place)?;
        let asked = Selector::read(&request.r#match).await;
        let asked = asked.map_err(|error| Fault::field("match", error.to_string()))?;
        let scope = caller.scope();
        let selector = Arc::new(scope.narrow(&asked));
        let filter = filter(&scope, &request, &selector)?;
        Ok(Response::new(self.find(&filter, &selector, after, limit).await?))
    }

    async fn resolve_alert(&self, request: Request<ResolveAlertRequest>) -> Result<Response<Wire>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::AlertsWrite)?;
        let id = request.into_inner().id;
        let resolved = self.pools.bounded(self.resolve(&id, &caller.scope(), &caller.subject)).await;
        let Some(alert) = resolved.map_err(::store::fault)? else { return Err(Fault::not_found("alert", &id).into()) };
        self.committed.notify_one();
        tracing::info!(alert = alert.id, subject = caller.subject, "alert resolved by hand");
        let answer = self.shown(vec![alert]).await?.pop().ok_or_else(|| Fault::not_found("alert", &id))?;
        Ok(Response::new(answer))
    }
}

impl AlertsApi {
    async fn find(
        &self,
        filter: &Filter,
        selector: &Arc<Selector>,
        mut after: Option<(u64, String)>,
        limit: usize,
    ) -> fault::Result<ListAlertsResponse> {
        let (mut items, end) = (Vec::new(), Instant::now() + PATIENCE);
        // One more than asked for tells whether there is a next page.
        let step = if selector.is_everything() { limit + 1 } else { SCAN };
        for _ in 0..SCAN_MOST.div_ceil(step) {
            let rows = i64::try_from(step).unwrap_or(i64::MAX);
            let rows =
                listing::alerts(&self.pools.api, filter, after.as_ref(), rows).await.map_err(::store::search_fault)?;
            let is_last = rows.len() < step;
            let sifted = selector.sift(rows, end, |alert: &Alert, label| alert.label(label)).await;
            for (alert, chosen) in sifted.map_err(|_| ::store::too_slow())? {
                let place = (alert.starts, alert.id.clone());
                if chosen {
                    if items.len() == limit {
                        return self.answer(items, after).await;
                    }
                    items.push(alert);
                }
                after = Some(place);
            }
            if is_last {
                return self.answer(items, None).await;
            }
        }
        self.answer(items, after).await
    }

    async fn answer(&self, items: Vec<Alert>, next: Option<(u64, String)>) -> fault::Result<ListAlertsResponse> {
        let next = next.map_or_else(String::new, |(starts, id)| page::cursor(&format!("{starts}:{id}")));
        Ok(ListAlertsResponse { items: self.shown(items).await?, next })
    }

    /// With what their receivers have heard.
    async fn shown(&self, alerts: Vec<Alert>) -> fault::Result<Vec<Wire>> {
        let ids: Vec<&str> = alerts.iter().map(|alert| alert.id.as_str()).collect();
        let mut news = deliveries::news(&self.pools.api, &ids).await.map_err(::store::fault)?;
        Ok(alerts.iter().map(|alert| wire::alert(alert, news.remove(&alert.id).unwrap_or_default())).collect())
    }

    /// The alert afterwards; `None` where there is none that the caller may see. One that is over stays as it is.
    async fn resolve(&self, id: &str, scope: &Scope, who: &str) -> sqlx::Result<Option<Alert>> {
        let ids = [id.replace('\0', "")];
        let mut transaction = self.pools.work.begin().await?;
        let mut changes = Changes::begin(&mut transaction, &ids).await?;
        let seen = |alert: &&Alert| {
            let is_in_scope = scope.selector().matches(|label| alert.label(label));
            alert.tenant == scope.tenant() && alert.occurrences > 0 && is_in_scope
        };
        let Some(alert) = changes.alert(&ids[0]).filter(seen).cloned() else { return Ok(None) };
        let Some(change) = end_by_hand(&alert, who, changes.now()) else { return Ok(Some(alert)) };
        let cause = format!("by_hand/{}", changes.now());
        let after = change.alert.clone();
        changes.apply(change, Cause { id: &cause, received: 0, traceparent: telemetry::context::current().as_deref() });
        changes.write(&mut transaction).await?;
        transaction.commit().await?;
        Ok(after)
    }
}

/// Behind an alert with this start and id.
fn place(text: &str) -> Option<(u64, String)> {
    let (starts, id) = text.split_once(':')?;
    Some((starts.parse().ok()?, id.to_owned()))
}

/// What Postgres can sort out by an index; the selector is applied to the rest.
fn filter(scope: &Scope, request: &ListAlertsRequest, selector: &Selector) -> fault::Result<Filter> {
    if !["", FIRING, RESOLVED].contains(&request.state.as_str()) {
        return Err(Fault::field("state", "write `firing` or `resolved`"));
    }
    if request.rule_id.contains('\0') || request.r#match.contains('\0') {
        return Err(Fault::invalid("invalid_text", "take the NUL characters out"));
    }
    let matchers = selector.matchers().iter();
    let exact = matchers.filter(|matcher| matcher.op == Op::Equal && !matcher.value.is_empty());
    let labels = exact.map(|matcher| (matcher.label.clone(), matcher.value.clone())).collect();
    Ok(Filter {
        tenant: scope.tenant().to_owned(),
        state: request.state.clone(),
        rule_id: request.rule_id.clone(),
        labels,
    })
}
