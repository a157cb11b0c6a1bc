//! Receivers and deliveries over gRPC: decode, call, encode.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use authn::{Permission, Principal, Scope, Verifier};
use fault::Fault;
use proto::dispatch::dispatch_server::Dispatch;
use proto::dispatch::{
    CreateReceiverRequest, DeleteReceiverRequest, DeleteReceiverResponse, GetReceiverRequest, ListDeliveriesRequest,
    ListDeliveriesResponse, ListReceiversRequest, ListReceiversResponse, MissingReceiversRequest,
    MissingReceiversResponse, Receiver as Wire, RotateSecretRequest, UpdateReceiverRequest, Webhook,
};
use tonic::{Request, Response, Status};

use crate::address::Policy;
use crate::breaker::DOWN_AFTER;
use crate::delivery::State;
use crate::receiver::{self, Draft, Receiver, new_secret};
use crate::store::ledger;
use crate::store::receivers::Receivers;

/// How long an old secret counts where nobody says otherwise, and at the most.
const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);
const LONGEST_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Names asked about at once.
const MOST_NAMES: usize = 1_000;

/// `sightline.dispatch.v1.Dispatch`.
pub struct DispatchApi {
    /// Receivers.
    pub receivers: Receivers,
    /// Tells who is asking.
    pub verifier: Verifier,
    /// Where webhooks may go.
    pub policy: Arc<Policy>,
}

#[tonic::async_trait]
impl Dispatch for DispatchApi {
    async fn list_receivers(
        &self,
        request: Request<ListReceiversRequest>,
    ) -> Result<Response<ListReceiversResponse>, Status> {
        let caller = self.caller(&request, Permission::ReceiversRead).await?;
        let request = request.into_inner();
        let limit = page::limit(request.limit)?;
        let after = page::place(&request.cursor, |name| Some(name.to_owned()))?.unwrap_or_default();
        let mut found = self.receivers.list(&caller.scope(), &after, rows(limit)).await?;
        let next = page::cut(&mut found, limit, |receiver| receiver.name.clone());
        let items = found.into_iter().map(|receiver| wire(receiver, false)).collect();
        Ok(Response::new(ListReceiversResponse { items, next }))
    }

    async fn create_receiver(&self, request: Request<CreateReceiverRequest>) -> Result<Response<Wire>, Status> {
        let caller = self.caller(&request, Permission::ReceiversWrite).await?;
        let request = request.into_inner();
        let Some(webhook) = request.webhook else { return Err(no_webhook().into()) };
        let draft = Draft::check(&request.name, &webhook.url, &webhook.secret, &request.idempotency_key, &self.policy)?;
        let secret = new_secret().map_err(Fault::internal)?;
        let receiver = self.receivers.create(&caller.scope(), &draft, &secret).await?;
        tracing::info!(receiver = receiver.name, id = %receiver.id, subject = caller.subject, "receiver created");
        Ok(Response::new(wire(receiver, true)))
    }

    async fn get_receiver(&self, request: Request<GetReceiverRequest>) -> Result<Response<Wire>, Status> {
        let caller = self.caller(&request, Permission::ReceiversRead).await?;
        let receiver = self.receivers.get(&caller.scope(), &request.into_inner().id).await?;
        Ok(Response::new(wire(receiver, false)))
    }

    async fn update_receiver(&self, request: Request<UpdateReceiverRequest>) -> Result<Response<Wire>, Status> {
        let caller = self.caller(&request, Permission::ReceiversWrite).await?;
        let request = request.into_inner();
        let (id, scope) = (&request.id, caller.scope());
        let Some(webhook) = request.webhook else { return Err(no_webhook().into()) };
        if !webhook.secret.is_empty() {
            return Err(
                Fault::field("webhook.secret", "rotate the secret instead: the old one counts for a while").into()
            );
        }
        let url = receiver::check_webhook_url(&webhook.url, &self.policy)?;
        if !request.name.is_empty() && self.receivers.get(&scope, id).await?.name != request.name {
            return Err(
                Fault::field("name", "a name cannot change, since rules name it; create another receiver").into()
            );
        }
        let receiver = self.receivers.update(&scope, id, request.version, &url).await?;
        tracing::info!(receiver = receiver.name, id = %receiver.id, subject = caller.subject, "receiver changed");
        Ok(Response::new(wire(receiver, false)))
    }

    async fn delete_receiver(
        &self,
        request: Request<DeleteReceiverRequest>,
    ) -> Result<Response<DeleteReceiverResponse>, Status> {
        let caller = self.caller(&request, Permission::ReceiversWrite).await?;
        let request = request.into_inner();
        self.receivers.delete(&caller.scope(), &request.id, request.version).await?;
        tracing::info!(receiver = request.id, subject = caller.subject, "receiver deleted");
        Ok(Response::new(DeleteReceiverResponse {}))
    }

    async fn rotate_secret(&self, request: Request<RotateSecretRequest>) -> Result<Response<Wire>, Status> {
        let caller = self.caller(&request, Permission::ReceiversWrite).await?;
        let request = request.into_inner();
        let overlap = match Duration::from_millis(request.overlap_millis) {
            Duration::ZERO => OVERLAP,
            overlap if overlap <= LONGEST_OVERLAP => overlap,
            _ => return Err(Fault::field("overlap", "30 days at the most").into()),
        };
        let secret = match request.secret.as_str() {
            "" => new_secret().map_err(Fault::internal)?,
            brought => receiver::check_secret(brought)?,
        };
        let rotated = self.receivers.rotate(&caller.scope(), &request.id, request.version, &secret, overlap).await?;
        tracing::info!(receiver = rotated.name, id = %rotated.id, subject = caller.subject, "secret rotated");
        Ok(Response::new(wire(rotated, true)))
    }

    async fn missing_receivers(
        &self,
        request: Request<MissingReceiversRequest>,
    ) -> Result<Response<MissingReceiversResponse>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        // Whoever writes rules names receivers.
        if caller.require(Permission::RulesWrite).is_err() {
            caller.require(Permission::ReceiversRead)?;
        }
        let names = request.into_inner().names;
        if names.len() > MOST_NAMES || names.iter().any(|name| name.contains('\0')) {
            return Err(Fault::field("names", format!("{MOST_NAMES} names at the most, without NUL")).into());
        }
        let names = self.receivers.missing(&caller.scope(), &names).await?;
        Ok(Response::new(MissingReceiversResponse { names }))
    }

    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Result<Response<ListDeliveriesResponse>, Status> {
        let caller = self.caller(&request, Permission::DeliveriesRead).await?;
        let request = request.into_inner();
        let limit = page::limit(request.limit)?;
        let before = page::place(&request.cursor, |number| number.parse().ok())?.unwrap_or(i64::MAX);
        let filter = filter(&caller.scope(), request)?;
        let found = ledger::list(&self.receivers.pools.api, &filter, before, rows(limit)).await;
        let mut found = found.map_err(::store::search_fault)?;
        let next = page::cut(&mut found, limit, |(number, _)| number.to_string());
        let items = found.into_iter().map(|(_, delivery)| delivery).collect();
        Ok(Response::new(ListDeliveriesResponse { items, next }))
    }
}

impl DispatchApi {
    async fn caller<T: Sync>(&self, request: &Request<T>, permission: Permission) -> fault::Result<Principal> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(permission)?;
        Ok(caller)
    }
}

fn no_webhook() -> Fault {
    Fault::field("webhook", "say where to: {\"url\": \"https://...\"}")
}

/// One more than asked for tells whether there is a next page.
fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

fn filter(scope: &Scope, request: ListDeliveriesRequest) -> fault::Result<ledger::Filter> {
    let state = match request.state.as_str() {
        "" => None,
        name => {
            let wrong = || Fault::field("state", "write `pending`, `delivered`, `failed` or `superseded`");
            Some(State::named(name).ok_or_else(wrong)?)
        }
    };
    for (path, text) in [("alert_id", &request.alert_id), ("receiver", &request.receiver)] {
        if text.contains('\0') {
            return Err(Fault::field(path, "take the NUL characters out"));
        }
    }
    let tenant = scope.tenant().to_owned();
    Ok(ledger::Filter { tenant, alert_id: request.alert_id, receiver: request.receiver, state })
}

/// A receiver for an answer; its secret is shown only to who creates or rotates it.
fn wire(receiver: Receiver, with_secret: bool) -> Wire {
    let secret = receiver.secret.filter(|_| with_secret);
    let secret = secret.map_or_else(String::new, |secret| secret.reveal().to_owned());
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let to_come = |time: u64| if u128::from(time) > now { time } else { 0 };
    Wire {
        id: receiver.id.to_string(),
        name: receiver.name,
        webhook: Some(Webhook { url: receiver.url, secret }),
        created_unix_nano: receiver.created,
        version: receiver.version,
        updated_unix_nano: receiver.updated,
        old_secret_until_unix_nano: to_come(receiver.old_secret_until),
        failures: receiver.failures,
        next_attempt_unix_nano: if receiver.failures >= DOWN_AFTER { to_come(receiver.held_until) } else { 0 },
    }
}
