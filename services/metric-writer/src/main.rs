//! The metric-writer's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifecycle::main::<metric_writer::config::Config, _, _>(metric_writer::app::run)
}
