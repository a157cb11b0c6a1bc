//! The search API: decode, ask, encode.

use std::sync::Arc;
use std::time::Duration;

use authn::{Permission, Scope, Verifier};
use fault::Fault;
use proto::logs::log_search_server::LogSearch;
use proto::logs::search_logs_request::Order;
use proto::logs::{GetProcessesRequest, GetProcessesResponse, SearchLogsRequest, SearchLogsResponse};
use regex::RegexBuilder;
use selector::Selector;
use store::Pool;
use tonic::{Request, Response, Status};

use crate::metrics::Metrics;
use crate::search::{self, Place, Query};

/// Of the automaton of a regular expression: what a line may cost is this times its length.
const REGEX_BYTES: usize = 256 << 10;

pub(crate) struct Search {
    pub(crate) pool: Pool,
    pub(crate) verifier: Verifier,
    pub(crate) timeout: Duration,
    pub(crate) metrics: Metrics,
}

#[tonic::async_trait]
impl LogSearch for Search {
    async fn search_logs(&self, request: Request<SearchLogsRequest>) -> Result<Response<SearchLogsResponse>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::LogsRead)?;
        self.metrics.searches.inc();
        let query = query(caller.scope(), request.into_inner()).await?;
        let (items, next) = search::logs(&self.pool, query, self.timeout).await?;
        Ok(Response::new(SearchLogsResponse { items, next }))
    }

    async fn get_processes(
        &self,
        request: Request<GetProcessesRequest>,
    ) -> Result<Response<GetProcessesResponse>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::ProcessesRead)?;
        let id = request.into_inner().resource_id;
        let snapshot = search::processes(&self.pool, &caller.scope(), &id, self.timeout).await?;
        let (time_unix_nano, items) = snapshot.ok_or_else(|| Fault::not_found("process_snapshot", &id))?;
        Ok(Response::new(GetProcessesResponse { time_unix_nano, items }))
    }
}

async fn query(scope: Scope, request: SearchLogsRequest) -> fault::Result<Query> {
    let newest_first = request.order() != Order::OldestFirst;
    let nanos = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    if request.from_unix_nano >= request.to_unix_nano {
        return Err(Fault::field("from", "`from` must be earlier than `to`"));
    }
    let selector = Selector::read(&request.r#match).await.map_err(|error| Fault::field("match", error.to_string()))?;
    let regex = (!request.regex.is_empty())
        .then(|| RegexBuilder::new(&request.regex).size_limit(REGEX_BYTES).build().map(Arc::new))
        .transpose()
        .map_err(|error| Fault::invalid("invalid_regex", format!("the regular expression cannot be used: {error}")))?;
    if request.contains.contains('\0') {
        return Err(Fault::field("contains", "stored lines have no NUL bytes"));
    }
    Ok(Query {
        scope,
        from_ns: nanos(request.from_unix_nano),
        to_ns: nanos(request.to_unix_nano),
        selector,
        least_severity: search::least_severity(&request.level)?,
        contains: request.contains,
        regex,
        newest_first,
        limit: page::limit(request.limit)?,
        after: page::place(&request.cursor, Place::parse)?,
    })
}
