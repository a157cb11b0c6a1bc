//! The ingest-gateway's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifecycle::main::<ingest_gateway::config::Config, _, _>(ingest_gateway::app::run)
}
