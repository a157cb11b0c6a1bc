//! A closed set of error kinds, mapped once to gRPC and once to HTTP.
//!
//! A [`Fault`] carries two texts: `detail` is for the caller and says what to do, the cause is for the log and never
//! leaves the process. Codes are stable and documented; texts may change.

mod grpc;
mod http;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What went wrong, from the caller's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request can never succeed as it is.
    Invalid,
    /// Nobody we know sent it.
    Unauthenticated,
    /// The sender may not do that.
    Forbidden,
    /// There is no such thing, or it belongs to somebody else.
    NotFound,
    /// There is such a thing, but this cannot be done with it.
    MethodNotAllowed,
    /// It clashes with what exists.
    Conflict,
    /// The document changed since the caller read it.
    Stale,
    /// Over a size limit.
    TooLarge,
    /// The body is written in a form that is not read here.
    UnsupportedMediaType,
    /// The caller's own limit; later it may pass.
    Limited,
    /// A thing that we depend on is away; later it may pass.
    Unavailable,
    /// Our own mistake.
    Internal,
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Where it is, for example `condition` or `webhook.url`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// An error with its kind, its stable code and the text that the caller may see.
pub struct Fault {
    kind: Kind,
    code: String,
    detail: String,
    fields: Vec<Field>,
    retry_after: Option<Duration>,
    cause: Option<anyhow::Error>,
}

/// Shorthand for results of operations that callers see.
pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// A fault of `kind`; `code` is stable snake_case, `detail` says what to do.
    pub fn new(kind: Kind, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind, code: code.into(), detail: detail.into(), fields: Vec::new(), retry_after: None, cause: None }
    }

    /// The request can never succeed as it is.
    pub fn invalid(code: &str, detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, code, detail)
    }

    /// Single fields are wrong.
    pub fn fields(fields: Vec<Field>) -> Self {
        let detail = fields.iter().map(|f| format!("{}: {}", f.path, f.message)).collect::<Vec<_>>().join("; ");
        let mut fault = Self::new(Kind::Invalid, "invalid_fields", detail);
        fault.fields = fields;
        fault
    }

    /// One field is wrong.
    pub fn field(path: &str, message: impl Into<String>) -> Self {
        Self::fields(vec![Field { path: path.to_owned(), message: message.into() }])
    }

    /// There is no such `what`.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Kind::NotFound, format!("{what}_not_found"), format!("there is no {what} `{id}`"))
    }

    /// A dependency is away; `cause` goes to the log.
    pub fn unavailable(code: &str, detail: impl Into<String>, cause: impl Into<anyhow::Error>) -> Self {
        Self::new(Kind::Unavailable, code, detail).caused_by(cause).retry_after(Duration::from_secs(1))
    }

    /// Our own mistake; `cause` goes to the log, the caller learns nothing of it.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::new(Kind::Internal, "internal", "something went wrong on our side; the request id finds it in the logs")
            .caused_by(cause)
    }

    /// Adds what only the log may see.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Tells the caller when to come back.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What the caller may read.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// When the caller is told to come back.
    #[must_use]
    pub fn retry_delay(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Limited)
    }

    /// Logs what the caller does not see, once, where the answer is made.
    fn log(&self) {
        match (&self.cause, self.kind) {
            (Some(cause), Kind::Internal) => {
                tracing::error!(code = self.code, error = format!("{cause:#}"), "request failed")
            }
            (Some(cause), _) => tracing::warn!(code = self.code, error = format!("{cause:#}"), "request failed"),
            (None, _) => tracing::debug!(code = self.code, detail = self.detail, "request refused"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}: {}", self.kind, self.code, self.detail)?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, " ({cause:#})"))
    }
}

impl std::error::Error for Fault {}
