//! The registry.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifecycle::main(registry::app::run)
}
