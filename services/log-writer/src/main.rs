//! The log-writer's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifecycle::main::<log_writer::config::Config, _, _>(log_writer::app::run)
}
