//! The dispatcher's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifecycle::main::<dispatcher::config::Config, _, _>(dispatcher::app::run)
}
