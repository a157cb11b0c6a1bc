//! What clients are told when their message is not taken, in the words of their protocol, and what operators are told of it.
//!
//! Telemetry clients repeat on UNAVAILABLE and drop on INTERNAL: nothing that is our own trouble may become the latter.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fault::{Fault, Kind};
use tonic::{Code, Status};

use crate::metrics::{Metrics, Outcome};
use crate::rarely::Rarely;

/// The message is larger than `limit` bytes.
pub(crate) fn too_large(what: &str, limit: usize) -> Fault {
    let detail = format!("the {what} is larger than {limit} bytes; send smaller batches");
    Fault::new(Kind::TooLarge, "message_too_large", detail)
}

/// There is no room now.
pub(crate) fn overloaded(detail: &str) -> Fault {
    Fault::new(Kind::Unavailable, "overloaded", detail).retry_after(Duration::from_secs(1))
}

/// How a refusal is counted.
pub(crate) fn outcome(fault: &Fault) -> Outcome {
    match fault.kind() {
        Kind::Unauthenticated | Kind::Forbidden => Outcome::Denied,
        Kind::Unavailable if fault.code() == "overloaded" => Outcome::Overloaded,
        Kind::Unavailable | Kind::Internal | Kind::Limited => Outcome::Unavailable,
        _ => Outcome::Invalid,
    }
}

/// The refusal as a status that no client takes for final unless it is.
pub(crate) fn status(fault: Fault) -> Status {
    let status = Status::from(fault);
    if status.code() == Code::Internal {
        return Status::from(overloaded("something went wrong on our side; try again"));
    }
    status
}

/// Why a whole request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Unauthenticated,
    Forbidden,
    Malformed,
    TooLarge,
    /// A compression or a content type that is not taken.
    Encoding,
    Overloaded,
    Unavailable,
    /// A path of HTTP that leads nowhere.
    UnknownPath,
    /// A gRPC method that does not exist.
    UnknownMethod,
    /// Another method than POST.
    HttpMethod,
    /// Traces, and what older agents send.
    NotTaken,
}

impl Why {
    const ALL: usize = 11;

    fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Encoding => "encoding",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::UnknownPath => "unknown_path",
            Self::UnknownMethod => "unknown_method",
            Self::HttpMethod => "http_method",
            Self::NotTaken => "not_taken",
        }
    }
}

impl From<&Fault> for Why {
    fn from(fault: &Fault) -> Self {
        match fault.kind() {
            Kind::Unauthenticated => Self::Unauthenticated,
            Kind::Forbidden => Self::Forbidden,
            Kind::TooLarge => Self::TooLarge,
            Kind::Unavailable if fault.code() == "overloaded" => Self::Overloaded,
            Kind::Unavailable | Kind::Internal | Kind::Limited => Self::Unavailable,
            _ if fault.code() == "encoding_unknown" => Self::Encoding,
            _ => Self::Malformed,
        }
    }
}

/// How often a reason is worth a line in the log.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Shows who is refused and why: each is counted, and now and then one is said in the log. Clones share it.
#[derive(Clone)]
pub struct Refusals {
    metrics: Metrics,
    said: Arc<Mutex<[Rarely; Why::ALL]>>,
}

impl Refusals {
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, said: Arc::default() }
    }

    /// A request from `client` to `path` was refused.
    pub fn note(&self, why: Why, client: IpAddr, path: &str, detail: &str) {
        self.metrics.requests_refused.of([why.as_str()]).inc();
        if let Some(unsaid) = self.is_due(why, Instant::now()) {
            let path = &path[..path.floor_char_boundary(200)];
            tracing::warn!(reason = why.as_str(), %client, path, detail, unsaid, "a client's request is refused");
        }
    }

    /// How many were not said since the last that was, when this one is to be said.
    fn is_due(&self, why: Why, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said[why as usize].happened(1, SAID_EVERY, now).map(|all| all - 1)
    }
}

#[cfg(test)]
mod tests {
    use telemetry::metrics::Registry;

    use super::*;

    #[test]
    fn each_reason_is_said_now_and_then_and_counted_always() {
        let refusals = Refusals::new(Metrics::register(&mut Registry::default()));
        let begin = Instant::now();
        assert_eq!(refusals.is_due(Why::UnknownPath, begin), Some(0));
        assert_eq!(refusals.is_due(Why::UnknownPath, begin), None);
        assert_eq!(refusals.is_due(Why::UnknownPath, begin + SAID_EVERY / 2), None);
        assert_eq!(refusals.is_due(Why::NotTaken, begin), Some(0));
        assert_eq!(refusals.is_due(Why::UnknownPath, begin + SAID_EVERY), Some(2));
        refusals.note(Why::UnknownPath, "10.0.0.1".parse().unwrap(), "/v1/log", "");
        assert_eq!(refusals.metrics.requests_refused.of(["unknown_path"]).get(), 1);
    }
}
