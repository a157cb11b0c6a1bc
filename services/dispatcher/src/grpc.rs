//! Receivers and deliveries over gRPC: decode, call, encode.

use std::sync::Arc;

use authn::{Permission, Verifier};
use fault::Fault;
use proto::dispatch::dispatch_server::Dispatch;
use proto::dispatch::{
    CreateReceiverRequest, ListDeliveriesRequest, ListDeliveriesResponse, ListReceiversRequest, ListReceiversResponse,
    Receiver as Wire, Webhook,
};
use sqlx::PgPool;
use tonic::{Request, Response, Status};

use crate::address::Policy;
use crate::delivery::State;
use crate::receiver::{Draft, Receiver, new_secret};
use crate::store::{ledger, receivers};

/// `sightline.dispatch.v1.Dispatch`.
pub struct DispatchApi {
    /// The service's tables.
    pub pool: PgPool,
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
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::ReceiversRead)?;
        let request = request.into_inner();
        let limit = page::limit(request.limit)?;
        let after = page::place(&request.cursor, |name| Some(name.to_owned()))?.unwrap_or_default();
        let found = receivers::list(&self.pool, &caller.tenant, &after, rows(limit)).await;
        let mut found = found.map_err(::store::fault)?;
        let next = page::cut(&mut found, limit, |receiver| receiver.name.clone());
        let items = found.into_iter().map(|receiver| wire(receiver, false)).collect();
        Ok(Response::new(ListReceiversResponse { items, next }))
    }

    async fn create_receiver(&self, request: Request<CreateReceiverRequest>) -> Result<Response<Wire>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::ReceiversWrite)?;
        let request = request.into_inner();
        let Some(webhook) = request.webhook else {
            return Err(Fault::field("webhook", "say where to: {\"url\": \"https://...\"}").into());
        };
        let draft = Draft::check(&request.name, &webhook.url, &webhook.secret, &request.idempotency_key, &self.policy)?;
        let secret = new_secret().map_err(Fault::internal)?;
        let receiver = receivers::create(&self.pool, &caller.tenant, &draft, &secret).await?;
        tracing::info!(receiver = receiver.name, id = %receiver.id, subject = caller.subject, "receiver created");
        Ok(Response::new(wire(receiver, true)))
    }

    async fn get_receiver(&self, _: Request<proto::dispatch::GetReceiverRequest>) -> Result<Response<Wire>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_receiver(&self, _: Request<proto::dispatch::UpdateReceiverRequest>) -> Result<Response<Wire>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_receiver(&self, _: Request<proto::dispatch::DeleteReceiverRequest>) -> Result<Response<proto::dispatch::DeleteReceiverResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn rotate_secret(&self, _: Request<proto::dispatch::RotateSecretRequest>) -> Result<Response<Wire>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn missing_receivers(&self, _: Request<proto::dispatch::MissingReceiversRequest>) -> Result<Response<proto::dispatch::MissingReceiversResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Result<Response<ListDeliveriesResponse>, Status> {
        let caller = self.verifier.caller(request.metadata()).await?;
        caller.require(Permission::DeliveriesRead)?;
        let request = request.into_inner();
        let limit = page::limit(request.limit)?;
        let before = page::place(&request.cursor, |number| number.parse().ok())?.unwrap_or(i64::MAX);
        let filter = filter(caller.tenant, request)?;
        let found = ledger::list(&self.pool, &filter, before, rows(limit)).await;
        let mut found = found.map_err(::store::fault)?;
        let next = page::cut(&mut found, limit, |(number, _)| number.to_string());
        let items = found.into_iter().map(|(_, delivery)| delivery).collect();
        Ok(Response::new(ListDeliveriesResponse { items, next }))
    }
}

/// One more than asked for tells whether there is a next page.
fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

fn filter(tenant: String, request: ListDeliveriesRequest) -> fault::Result<ledger::Filter> {
    let state = match request.state.as_str() {
        "" => None,
        name => {
            let wrong = || Fault::field("state", "write `pending`, `delivered` or `failed`");
            Some(State::named(name).ok_or_else(wrong)?)
        }
    };
    for (path, text) in [("alert_id", &request.alert_id), ("receiver", &request.receiver)] {
        if text.contains('\0') {
            return Err(Fault::field(path, "take the NUL characters out"));
        }
    }
    Ok(ledger::Filter { tenant, alert_id: request.alert_id, receiver: request.receiver, state })
}

/// A receiver for an answer; its secret is shown only to who creates it.
fn wire(receiver: Receiver, with_secret: bool) -> Wire {
    let secret = if with_secret { receiver.secret.reveal().to_owned() } else { String::new() };
    Wire {
        id: receiver.id.to_string(),
        name: receiver.name,
        webhook: Some(Webhook { url: receiver.url, secret }),
        created_unix_nano: receiver.created,
        ..Wire::default()
    }
}
