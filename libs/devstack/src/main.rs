//! The program behind `cargo dev`.

use std::process::ExitCode;

use devstack::interrupt::Interrupted;

/// What a shell says of a program that Ctrl-C ended.
const BY_SIGNAL: u8 = 130;

fn main() -> ExitCode {
    match devstack::command::run(std::env::args_os().skip(1).collect()) {
        Ok(code) => code,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(BY_SIGNAL),
        Err(error) => {
            devstack::console::note(&format!("cargo dev: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
