//! The alert-service against real Postgres and NATS.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests stop like tests")]

mod absence;
mod kill;
mod list;
mod support;
mod transitions;
