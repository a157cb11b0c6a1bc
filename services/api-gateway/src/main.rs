//! The api-gateway's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifecycle::main::<api_gateway::config::Config, _, _>(api_gateway::app::run)
}
