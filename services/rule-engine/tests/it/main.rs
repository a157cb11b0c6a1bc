//! The rule engine on real servers.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod api;
mod firing;
mod flood;
mod levels;
mod mixed;
mod progress;
mod support;
mod takeover;
mod time;
