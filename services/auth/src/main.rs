//! The auth service.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifecycle::main(auth::app::run)
}
