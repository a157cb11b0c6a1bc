//! What every route can reach, and who is asking.

use std::sync::Arc;

use authn::{Principal, Verifier};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use fault::Fault;

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
}

pub(crate) type AppState = Arc<Shared>;

/// A verified caller. A route that takes it cannot be reached without a good token.
pub(crate) struct Caller(pub(crate) Principal);

impl Caller {
    /// A gRPC request on the caller's behalf.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        rpc::forward(message, &self.0.token)
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Fault> {
        state.verifier.request(&parts.headers).await.map(Self)
    }
}
