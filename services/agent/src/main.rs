//! The agent's process.

use std::process::ExitCode;

use agent::config::{Command, Config};

fn main() -> ExitCode {
    let config: Config = settings::parse();
    match config.command {
        Some(Command::Id) => agent::app::print_id(&config),
        None => lifecycle::main(agent::app::run),
    }
}
