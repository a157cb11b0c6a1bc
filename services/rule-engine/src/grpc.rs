//! The `Rules` service: checks who asks and what, and asks the store.

use authn::{Permission, Principal, Verifier};
use fault::Fault;
use proto::rules::rules_server::{Rules, RulesServer};
use proto::rules::{
    CreateRuleRequest, DeleteRuleRequest, DeleteRuleResponse, GetRuleRequest, ListRulesRequest, ListRulesResponse,
    Rule, RuleDocument, UpdateRuleRequest,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::document;
use crate::store::{self, Store};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
const MAX_KEY: usize = 200;

/// The service's gRPC face.
pub struct Api {
    store: Store,
    verifier: Verifier,
}

impl Api {
    /// The service, ready to be added to a server.
    #[must_use]
    pub fn service(store: Store, verifier: Verifier) -> RulesServer<Self> {
        RulesServer::new(Self { store, verifier })
    }

    async fn caller<T>(&self, request: &Request<T>, permission: Permission) -> fault::Result<Principal> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(permission)?;
        Ok(caller)
    }
}

#[tonic::async_trait]
impl Rules for Api {
    async fn list_rules(&self, request: Request<ListRulesRequest>) -> Result<Response<ListRulesResponse>, Status> {
        let caller = self.caller(&request, Permission::RulesRead).await?;
        let ListRulesRequest { limit, cursor } = request.into_inner();
        let limit = match limit {
            0 => DEFAULT_LIMIT,
            limit => limit.min(MAX_LIMIT),
        };
        let after = read_cursor(&cursor)?;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut items = self.store.list(&caller.tenant, after, i64::from(limit) + 1).await?;
        let has_more = items.len() > most;
        items.truncate(most);
        let last = items.last().filter(|_| has_more);
        let next = last.map(|rule| rule.id.clone()).unwrap_or_default();
        Ok(Response::new(ListRulesResponse { items, next }))
    }

    async fn get_rule(&self, request: Request<GetRuleRequest>) -> Result<Response<Rule>, Status> {
        let caller = self.caller(&request, Permission::RulesRead).await?;
        let id = read_id(&request.get_ref().id)?;
        Ok(Response::new(self.store.get(&caller.tenant, id).await?))
    }

    async fn create_rule(&self, request: Request<CreateRuleRequest>) -> Result<Response<Rule>, Status> {
        let caller = self.caller(&request, Permission::RulesWrite).await?;
        let CreateRuleRequest { document, idempotency_key } = request.into_inner();
        let document = read_document(document)?;
        if idempotency_key.len() > MAX_KEY || idempotency_key.chars().any(char::is_control) {
            let message = format!("has at most {MAX_KEY} bytes and no control characters");
            return Err(Fault::field("idempotency_key", message).into());
        }
        let request =
            store::Request { tenant: &caller.tenant, subject: &caller.subject, idempotency_key: &idempotency_key };
        let rule = self.store.create(request, &document).await?;
        tracing::info!(rule = rule.id, tenant = caller.tenant, subject = caller.subject, "rule created");
        Ok(Response::new(rule))
    }

    async fn update_rule(&self, request: Request<UpdateRuleRequest>) -> Result<Response<Rule>, Status> {
        let caller = self.caller(&request, Permission::RulesWrite).await?;
        let UpdateRuleRequest { id, document, expected_version } = request.into_inner();
        let id = read_id(&id)?;
        let document = read_document(document)?;
        let rule = self.store.update(&caller.tenant, id, &document, expected_version).await?;
        tracing::info!(
            rule = rule.id,
            version = rule.version,
            tenant = caller.tenant,
            subject = caller.subject,
            "rule changed"
        );
        Ok(Response::new(rule))
    }

    async fn delete_rule(&self, request: Request<DeleteRuleRequest>) -> Result<Response<DeleteRuleResponse>, Status> {
        let caller = self.caller(&request, Permission::RulesWrite).await?;
        let DeleteRuleRequest { id, expected_version } = request.into_inner();
        self.store.delete(&caller.tenant, read_id(&id)?, expected_version).await?;
        tracing::info!(rule = id, tenant = caller.tenant, subject = caller.subject, "rule deleted");
        Ok(Response::new(DeleteRuleResponse {}))
    }
}

fn read_document(document: Option<RuleDocument>) -> fault::Result<RuleDocument> {
    document::check(document.ok_or_else(|| Fault::field("document", "is missing"))?)
}

/// What is no id names no rule.
fn read_id(id: &str) -> fault::Result<Uuid> {
    id.parse().map_err(|_| Fault::not_found("rule", &id.chars().take(64).collect::<String>()))
}

fn read_cursor(cursor: &str) -> fault::Result<Option<Uuid>> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let parsed = cursor.parse().map(Some);
    parsed.map_err(|_| Fault::field("cursor", "is not one that a list has answered with"))
}
