//! Request bodies, parameters and path segments, read with errors that say which field is wrong.

use std::error::Error;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use fault::{Fault, Kind};
use serde::de::DeserializeOwned;

/// A JSON body; unknown fields are refused by the types themselves.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(refusal(&rejection)),
        }
    }
}

fn refusal(rejection: &JsonRejection) -> Fault {
    if let JsonRejection::MissingJsonContentType(_) = rejection {
        let detail = "send the body as JSON with the header `Content-Type: application/json`";
        return Fault::new(Kind::UnsupportedMediaType, "content_type_missing", detail);
    }
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Fault::new(Kind::TooLarge, "body_too_large", "the body is larger than 1 MiB");
    }
    match stalled(rejection) {
        Some(stalled) => Fault::unavailable("body_stalled", STALLED, anyhow::anyhow!("{stalled}")),
        None => Fault::invalid("invalid_json", plain(&rejection.body_text())),
    }
}

/// What a caller is told whose body stopped arriving.
pub(crate) const STALLED: &str = "the body of the request stopped arriving; send it again";

/// Whether that is behind an error.
pub(crate) fn stalled(error: &dyn Error) -> Option<&edge::Stalled> {
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.find_map(|cause| cause.downcast_ref())
}

/// Query parameters; unknown ones are refused by the types themselves.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(Fault::invalid("invalid_parameter", "take the NUL characters out"));
        }
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Fault::invalid("invalid_parameter", plain(&rejection.body_text()))),
        }
    }
}

/// What a path names.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        if parts.uri.path().contains("%00") {
            return Err(Fault::invalid("invalid_path", "take the NUL characters out"));
        }
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(Fault::invalid("invalid_path", plain(&rejection.body_text()))),
        }
    }
}

/// axum's sentences begin with how it failed to use the text; the part after the colon says what is wrong with it.
fn plain(text: &str) -> String {
    text.split_once(": ").map_or(text, |(_, reason)| reason).to_owned()
}

/// A page of things.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Page<T> {
    /// The things, in the order that the route documents.
    pub(crate) items: Vec<T>,
    /// Pass it as `cursor` to get the next page; null on the last one.
    pub(crate) next: Option<String>,
}

impl<T> Page<T> {
    pub(crate) fn new<S>(items: Vec<S>, next: String) -> Json<Self>
    where
        T: From<S>,
    {
        let items = items.into_iter().map(T::from).collect();
        Json(Self { items, next: (!next.is_empty()).then_some(next) })
    }
}

/// Checks a page size: 1 to 1000.
pub(crate) fn limit(limit: Option<u32>) -> Result<u32, Fault> {
    match limit {
        None => Ok(100),
        Some(limit @ 1..=1000) => Ok(limit),
        Some(_) => Err(Fault::field("limit", "write a number from 1 to 1000")),
    }
}

/// How a list is paged.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// 100 when left out
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<u32>,
    /// `next` of the page before
    pub(crate) cursor: Option<String>,
}
