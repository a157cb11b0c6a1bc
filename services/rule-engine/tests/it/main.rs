//! The rule engine on real servers.

mod api;
mod firing;
mod support;
mod takeover;
