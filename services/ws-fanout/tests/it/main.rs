//! Live streams over real WebSockets, from a real broker.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod away;
mod live;
mod opening;
mod slow;
mod support;
