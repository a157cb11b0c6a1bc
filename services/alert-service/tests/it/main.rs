//! The alert-service against real Postgres and NATS.

mod absence;
mod kill;
mod list;
mod support;
mod transitions;
