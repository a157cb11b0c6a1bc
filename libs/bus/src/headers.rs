//! Names of the headers that envelopes carry, and what is read from them without looking inside.

pub(crate) const SCHEMA: &str = "Sl-Schema";
pub(crate) const TENANT: &str = "Sl-Tenant";
pub(crate) const ITEMS: &str = "Sl-Items";
pub(crate) const RECEIVED: &str = "Sl-Received";
pub(crate) const ENCODING: &str = "Sl-Encoding";

/// Of a message that waits and has stepped out of the way: when the broker took it first, its first place, its first id, and
/// why it is to become a dead letter, if it is.
pub(crate) const DEFERRED_SINCE: &str = "Sl-Deferred-Since";
pub(crate) const DEFERRED_SEQUENCE: &str = "Sl-Deferred-Sequence";
pub(crate) const DEFERRED_ID: &str = "Sl-Deferred-Id";
pub(crate) const DEFERRED_DEAD: &str = "Sl-Deferred-Dead";

/// The schema of a tick.
pub(crate) const TICK: &str = "sightline.tick.v1";

/// The time of a tick; none where the headers are not a tick's.
pub(crate) fn tick<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<u64> {
    (header(SCHEMA) == Some(TICK)).then(|| header(RECEIVED)?.parse().ok())?
}
