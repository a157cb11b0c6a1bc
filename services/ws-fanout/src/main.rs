//! The ws-fanout's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifecycle::main::<ws_fanout::config::Config, _, _>(ws_fanout::app::run)
}
