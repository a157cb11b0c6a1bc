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

const MAX_KEY: usize = 200;

/// The service's gRPC face.
pub struct Api {
    store: Store,
    verifier: Verifier,
    shards: u16,
}

impl Api {
    /// The service, ready to be added to a server.
    #[must_use]
    pub fn service(store: Store, verifier: Verifier, shards: u16) -> RulesServer<Self> {
        RulesServer::new(Self { store, verifier, shards })
    }

    async fn caller<T>(&self, request: &Request<T>, permission: Permission) -> fault::Result<Principal> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(permission)?;
        Ok(caller)
    }

    async fn with_bound(&self, rule: &store::Stored) -> fault::Result<Rule> {
        let bound = self.store.bound(rule, self.shards).await?;
        Ok(Rule { bound: Some(bound), ..rule.wire() })
    }
}

#[tonic::async_trait]
impl Rules for Api {
    async fn list_rules(&self, request: Request<ListRulesRequest>) -> Result<Response<ListRulesResponse>, Status> {
        let caller = self.caller(&request, Permission::RulesRead).await?;
        let ListRulesRequest { limit, cursor } = request.into_inner();
        let limit = page::limit(limit)?;
        let after = page::place(&cursor, |place| place.parse().ok())?;
        let mut items = self.store.list(&caller.scope(), after, limit + 1).await?;
        let next = page::cut(&mut items, limit, |rule| rule.id.clone());
        Ok(Response::new(ListRulesResponse { items, next }))
    }

    async fn get_rule(&self, request: Request<GetRuleRequest>) -> Result<Response<Rule>, Status> {
        let caller = self.caller(&request, Permission::RulesRead).await?;
        let id = read_id(&request.get_ref().id)?;
        let rule = self.store.get(&caller.scope(), id).await?;
        Ok(Response::new(self.with_bound(&rule).await?))
    }

    async fn create_rule(&self, request: Request<CreateRuleRequest>) -> Result<Response<Rule>, Status> {
        let caller = self.caller(&request, Permission::RulesWrite).await?;
        let CreateRuleRequest { document, idempotency_key } = request.into_inner();
        let document = read_document(document).await?;
        if idempotency_key.len() > MAX_KEY || idempotency_key.chars().any(char::is_control) {
            let message = format!("has at most {MAX_KEY} bytes and no control characters");
            return Err(Fault::field("idempotency_key", message).into());
        }
        let request =
            store::Request { scope: &caller.scope(), subject: &caller.subject, idempotency_key: &idempotency_key };
        let rule = self.store.create(request, &document).await?;
        tracing::info!(rule = %rule.id, tenant = caller.tenant, subject = caller.subject, "rule created");
        Ok(Response::new(self.with_bound(&rule).await?))
    }

    async fn update_rule(&self, request: Request<UpdateRuleRequest>) -> Result<Response<Rule>, Status> {
        let caller = self.caller(&request, Permission::RulesWrite).await?;
        let UpdateRuleRequest { id, document, expected_version } = request.into_inner();
        let id = read_id(&id)?;
        let document = read_document(document).await?;
        let rule = self.store.update(&caller.scope(), id, &document, expected_version).await?;
        tracing::info!(
            rule = %rule.id,
            version = rule.version,
            tenant = caller.tenant,
            subject = caller.subject,
            "rule changed"
        );
        Ok(Response::new(rule.wire()))
    }

    async fn delete_rule(&self, request: Request<DeleteRuleRequest>) -> Result<Response<DeleteRuleResponse>, Status> {
        let caller = self.caller(&request, Permission::RulesWrite).await?;
        let DeleteRuleRequest { id, expected_version } = request.into_inner();
        self.store.delete(&caller.scope(), read_id(&id)?, expected_version).await?;
        tracing::info!(rule = id, tenant = caller.tenant, subject = caller.subject, "rule deleted");
        Ok(Response::new(DeleteRuleResponse {}))
    }
}

/// Expressions take time to be compiled.
async fn read_document(document: Option<RuleDocument>) -> fault::Result<RuleDocument> {
    let document = document.ok_or_else(|| Fault::field("document", "is missing"))?;
    tokio::task::spawn_blocking(|| document::check(document)).await.map_err(Fault::internal)?
}

/// What is no id names no rule.
fn read_id(id: &str) -> fault::Result<Uuid> {
    id.parse().map_err(|_| Fault::not_found("rule", &id.chars().take(64).collect::<String>()))
}
