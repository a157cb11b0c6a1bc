//! The whole of Sightline on real servers.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bad_input;
mod books;
mod ledger;
mod outage;
mod path;
mod settings;
