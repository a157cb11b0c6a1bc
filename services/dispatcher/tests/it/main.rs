//! The dispatcher against real Postgres, NATS and HTTP receivers.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests stop like tests")]

mod addresses;
mod deliveries;
mod kill;
mod receiver;
mod receivers;
mod support;
