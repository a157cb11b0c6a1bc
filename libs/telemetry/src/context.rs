//! The trace context of the current span as text, and back.

use std::collections::HashMap;

use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Name of the header, in HTTP, gRPC and NATS alike (W3C Trace Context, section 3.2).
pub const HEADER: &str = "traceparent";

/// The current span's `traceparent`, or nothing when it is not traced.
#[must_use]
pub fn current() -> Option<String> {
    let mut carrier = HashMap::new();
    opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Span::current().context(), &mut carrier);
    });
    carrier.remove(HEADER)
}

/// Makes `span` a child of the remote span in `traceparent`; a malformed one is ignored, as the standard asks.
pub fn adopt(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([(HEADER.to_owned(), traceparent.to_owned())]);
    let parent = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
    // Only a span that tracing has disabled refuses a parent, and then there is nothing to connect.
    let _ = span.set_parent(parent);
}
