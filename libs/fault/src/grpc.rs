//! Faults as gRPC statuses and back, by the standard error details (`google.rpc`).

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::{Fault, Field, Kind};

const DOMAIN: &str = "sightline";

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        fault.log();
        let code = match fault.kind {
            Kind::Invalid | Kind::TooLarge | Kind::UnsupportedMediaType => Code::InvalidArgument,
            Kind::Unauthenticated => Code::Unauthenticated,
            Kind::Forbidden => Code::PermissionDenied,
            Kind::NotFound => Code::NotFound,
            Kind::MethodNotAllowed => Code::Unimplemented,
            Kind::Conflict => Code::AlreadyExists,
            Kind::Stale => Code::FailedPrecondition,
            Kind::Limited => Code::ResourceExhausted,
            Kind::Unavailable => Code::Unavailable,
            Kind::Internal => Code::Internal,
        };
        let mut details = ErrorDetails::new();
        details.set_error_info(fault.code, DOMAIN, [("kind".to_owned(), format!("{:?}", fault.kind))]);
        if !fault.fields.is_empty() {
            let violations = fault.fields.into_iter().map(|f| FieldViolation::new(f.path, f.message));
            details.set_bad_request(violations.collect::<Vec<_>>());
        }
        if let Some(delay) = fault.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(code, fault.detail, details)
    }
}

impl From<Status> for Fault {
    /// Reads a status from one of our own services; anybody's else becomes the nearest kind.
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let ours = details.error_info().filter(|info| info.domain == DOMAIN);
        let kind = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => {
                let too_large = ours.is_some_and(|info| info.metadata.get("kind").is_some_and(|k| k == "TooLarge"));
                if too_large { Kind::TooLarge } else { Kind::Invalid }
            }
            Code::Unauthenticated => Kind::Unauthenticated,
            Code::PermissionDenied => Kind::Forbidden,
            Code::NotFound => Kind::NotFound,
            Code::AlreadyExists => Kind::Conflict,
            Code::FailedPrecondition | Code::Aborted => Kind::Stale,
            Code::ResourceExhausted => Kind::Limited,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Kind::Unavailable,
            _ => Kind::Internal,
        };
        let fields = details.bad_request().map(|bad| {
            let fields = bad.field_violations.iter();
            fields.map(|v| Field { path: v.field.clone(), message: v.description.clone() }).collect()
        });
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        match ours {
            Some(info) if kind != Kind::Internal => Self {
                kind,
                code: info.reason.clone(),
                detail: status.message().to_owned(),
                fields: fields.unwrap_or_default(),
                retry_after,
                cause: None,
            },
            // A transport error's text names addresses and libraries: it belongs in the log.
            _ if kind == Kind::Unavailable => {
                Fault::unavailable("service_unavailable", "a part of Sightline is away; try again shortly", status)
                    .retry_after(retry_after.unwrap_or(Duration::from_secs(1)))
            }
            _ if kind == Kind::Internal => Fault::internal(status),
            _ => Self::new(kind, "refused", status.message().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_the_way_through_grpc() {
        let fault = Fault::field("condition", "write a comparison such as `> 90`");
        let back = Fault::from(Status::from(fault));
        assert_eq!(back.kind(), Kind::Invalid);
        assert_eq!(back.code(), "invalid_fields");
        assert_eq!(back.fields[0].path, "condition");
    }

    #[test]
    fn a_transport_error_does_not_show_its_text() {
        let back = Fault::from(Status::unavailable("tcp connect error 10.0.0.7:9502"));
        assert_eq!(back.kind(), Kind::Unavailable);
        assert!(!back.detail().contains("10.0.0.7"));
    }
}
