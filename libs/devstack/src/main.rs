//! The program behind `cargo dev`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match devstack::command::run(std::env::args_os().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            devstack::console::note(&format!("cargo dev: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
