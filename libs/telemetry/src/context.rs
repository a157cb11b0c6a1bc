//! The trace context of the current span as text, and back.

use std::collections::HashMap;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The limit of the OpenTelemetry SDK's own default.
const MOST_LINKS: usize = 127;

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
    // Only a span that tracing has disabled refuses a parent, and then there is nothing to connect.
    let _ = span.set_parent(remote(traceparent));
}

/// Connects `span` with the remote span in `traceparent` and leaves it in its own trace; a malformed one is ignored.
pub fn link(span: &Span, traceparent: &str) {
    let other = remote(traceparent).span().span_context().clone();
    if other.is_valid() {
        span.add_link(other);
    }
}

/// Makes `span`, which works for many at once, a child of the first of `traceparents` and connects it with the others.
pub fn adopt_all<'a>(span: &Span, traceparents: impl IntoIterator<Item = &'a str>) {
    let mut traceparents = traceparents.into_iter();
    if let Some(first) = traceparents.next() {
        adopt(span, first);
    }
    for other in traceparents.take(MOST_LINKS) {
        let other = remote(other).span().span_context().clone();
        if other.is_valid() {
            span.add_link(other);
        }
    }
}

fn remote(traceparent: &str) -> Context {
    let carrier = HashMap::from([(HEADER.to_owned(), traceparent.to_owned())]);
    opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&carrier))
}
