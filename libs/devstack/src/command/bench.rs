//! `cargo dev bench`: one benchmark of tests-e2e, optimised, on four servers of its own.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::test::{Programs, Temporary, VARIABLE, exit_code};
use crate::build;
use crate::configuration::Configuration;
use crate::interrupt::Interrupt;
use crate::process::spawn_from_lasting_thread;
use crate::servers::Durability;
use crate::workspace::Workspace;

pub fn run(mut arguments: Vec<OsString>) -> Result<ExitCode> {
    if arguments.is_empty() {
        bail!("say which benchmark: cargo dev bench NAME [--json] [ARGS]");
    }
    let name = super::text(arguments.remove(0))?;
    let interrupt = Interrupt::install()?;
    let workspace = Workspace::find()?;
    let configuration = Configuration::from_environment()?;
    // What is measured must be as durable as what runs in earnest.
    let temporary = Temporary::start(&configuration, &workspace, Programs::Release, Durability::Kept, &interrupt)?;
    let mut command = build::cargo(workspace.root());
    command
        .args(["run", "--release", "--quiet", "-p", "tests-e2e", "--bin", &format!("bench-{name}"), "--"])
        .args(arguments);
    command.env(VARIABLE, temporary.variable(&workspace.release_bin(), None)?);
    let mut child = spawn_from_lasting_thread(command).context("start the benchmark")?;
    Ok(exit_code(build::wait(&mut child, &interrupt)?))
}
