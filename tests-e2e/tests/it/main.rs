//! The whole of Sightline on real servers.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod bad_input;
mod books;
mod crashes;
mod crossings;
mod document;
mod drain;
mod ledger;
mod outage;
mod path;
mod replicas;
mod settings;
mod traces;
mod upgrade;
