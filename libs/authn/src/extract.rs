//! The caller as an argument of axum routes whose state gives a [`Verifier`].

use axum::extract::{FromRef, FromRequestParts};
use fault::Fault;
use http::request::Parts;

use crate::{Principal, Verifier};

impl<S> FromRequestParts<S> for Principal
where
    Verifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        Verifier::from_ref(state).request(&parts.headers).await
    }
}
