//! What every route can reach, and who is asking.

use std::sync::Arc;

use authn::{Permission, Principal, Verifier};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use fault::Fault;
use ipnet::IpNet;

use crate::clients::Clients;
use crate::live::Live;
use crate::metrics_store::MetricsStore;
use crate::status::Status;

/// Shared by all routes.
pub(crate) struct Shared {
    pub(crate) verifier: Verifier,
    pub(crate) clients: Clients,
    pub(crate) metrics_store: MetricsStore,
    pub(crate) live: Live,
    pub(crate) status: Status,
    /// Whose word about a request's trace is taken.
    pub(crate) trusted_proxies: Vec<IpNet>,
}

pub(crate) type AppState = Arc<Shared>;

/// A verified caller. A route that takes it cannot be reached without a good token.
pub(crate) struct Caller(pub(crate) Principal);

impl Caller {
    /// Passes when the caller holds `permission`. The service that owns the thing checks that again.
    pub(crate) fn may(&self, permission: Permission) -> Result<(), Fault> {
        self.0.require(permission)
    }

    /// A gRPC request on the caller's behalf, which takes `permission`.
    pub(crate) fn request<T>(&self, permission: Permission, message: T) -> Result<tonic::Request<T>, Fault> {
        self.may(permission)?;
        Ok(rpc::forward(message, &self.0.token))
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Fault> {
        state.verifier.request(&parts.headers).await.map(Self)
    }
}
