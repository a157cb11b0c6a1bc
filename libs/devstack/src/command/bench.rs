//! `cargo dev bench`: one benchmark of tests-e2e, optimised, on four servers of its own.

use std::ffi::OsString;
use std::path::Path;
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
    check(workspace.root(), &name)?;
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

/// Before minutes are spent on building it.
fn check(root: &Path, name: &str) -> Result<()> {
    let folder = root.join("tests-e2e/src/bin");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let files = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        files.filter_map(|file| Some(file.strip_prefix("bench-")?.strip_suffix(".rs")?.to_owned())).collect();
    names.sort_unstable();
    if !names.iter().any(|known| known == name) {
        bail!("there is no benchmark {name}; there are: {}", names.join(", "));
    }
    Ok(())
}
