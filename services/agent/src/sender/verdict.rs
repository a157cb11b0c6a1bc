//! What a failed export means for its request.

use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass later, not before the delay that the gateway asked for.
    Retry(Option<Duration>),
    /// The gateway itself stumbled. It may pass later, unless it was the request that did it.
    Stumbled,
    /// It may pass with another credential, or once somebody has set the gateway right.
    Hold,
    /// It will never pass.
    Refused,
}

/// So often may gateways stumble on one request while they take others.
const MOST_STUMBLES: u32 = 8;
/// A delay beyond this is taken for a mistake.
const LONGEST_DELAY: Duration = Duration::from_secs(120);

/// Follows "Failures" of the OTLP specification, which knows permanent and transient codes; `stumbles` is how often
/// gateways have stumbled on the request before, and taken others in between. Proxies make of a fault of their own what
/// looks like one of the gateway, so that nothing is given up while nothing passes.
pub fn verdict(status: &Status, stumbles: u32) -> Verdict {
    // Made on this side: the connection failed. tonic gives such errors any of several codes.
    if status.source().is_some() {
        return Verdict::Retry(None);
    }
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay).map(|delay| delay.min(LONGEST_DELAY));
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::OutOfRange => {
            Verdict::Retry(delay)
        }
        Code::ResourceExhausted if delay.is_some() => Verdict::Retry(delay),
        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => Verdict::Hold,
        Code::Internal | Code::Unknown | Code::DataLoss if stumbles + 1 < MOST_STUMBLES => Verdict::Stumbled,
        _ => Verdict::Refused,
    }
}

/// A code as a label.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn with_delay(code: Code, delay: Duration) -> Status {
        Status::with_error_details(code, "busy", ErrorDetails::with_retry_info(Some(delay)))
    }

    #[test]
    fn overload_is_retried_after_the_delay_it_names() {
        let second = Duration::from_secs(1);
        assert_eq!(verdict(&with_delay(Code::Unavailable, second), 0), Verdict::Retry(Some(second)));
        assert_eq!(verdict(&with_delay(Code::ResourceExhausted, second), 0), Verdict::Retry(Some(second)));
        assert_eq!(verdict(&Status::unavailable("away"), 99), Verdict::Retry(None));
        assert_eq!(verdict(&with_delay(Code::Unavailable, second * 86_400), 0), Verdict::Retry(Some(LONGEST_DELAY)));
    }

    #[test]
    fn what_is_wrong_with_the_request_is_not_retried() {
        assert_eq!(verdict(&Status::invalid_argument("bad"), 0), Verdict::Refused);
        assert_eq!(verdict(&Status::resource_exhausted("too large"), 0), Verdict::Refused);
    }

    #[test]
    fn a_missing_credential_keeps_the_request() {
        assert_eq!(verdict(&Status::unauthenticated("who"), 99), Verdict::Hold);
        assert_eq!(verdict(&Status::permission_denied("no"), 99), Verdict::Hold);
    }

    #[test]
    fn a_fault_of_the_gateway_is_retried_but_not_for_ever() {
        assert_eq!(verdict(&Status::internal("oops"), 0), Verdict::Stumbled);
        assert_eq!(verdict(&Status::internal("oops"), MOST_STUMBLES - 1), Verdict::Refused);
    }

    #[test]
    fn a_broken_connection_is_retried_whatever_its_code() {
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert_eq!(verdict(&broken, 99), Verdict::Retry(None));
    }
}
