//! What clients are told when their message is not taken, in the words of their protocol.
//!
//! Telemetry clients repeat on UNAVAILABLE and drop on INTERNAL: nothing that is our own trouble may become the latter.

use std::time::Duration;

use fault::{Fault, Kind};
use tonic::{Code, Status};

use crate::metrics::Outcome;

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
