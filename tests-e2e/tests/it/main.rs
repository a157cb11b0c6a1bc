//! The whole of Sightline on real servers.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod ledger;
mod path;
mod settings;
