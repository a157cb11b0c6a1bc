//! The program; everything is in the library, so that tests can run it.

use rule_engine::{app, config::Config};

fn main() -> std::process::ExitCode {
    lifecycle::main::<Config, _, _>(app::run)
}
