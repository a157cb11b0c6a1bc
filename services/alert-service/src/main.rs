//! The alert-service's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifecycle::main::<alert_service::config::Config, _, _>(alert_service::app::run)
}
