//! Calls cargo the way this program was called by it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt::Interrupt;
use crate::process::{bound_to_us, describe_exit, spawn_from_lasting_thread};

/// Nobody compiles for longer; it only ends a wait that has no other end.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// What `cargo run` tells the program it runs. Handed on, it would make build scripts believe that something changed.
const OF_CARGO_RUN: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];

/// A cargo command in the clone, in a process group of its own, that dies with us.
pub fn cargo(root: &Path) -> Command {
    let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let cargo =
        variables.iter().find(|(name, _)| name == "CARGO").map_or_else(|| "cargo".into(), |(_, path)| path.clone());
    let mut command = bound_to_us("TERM", None);
    command.arg(cargo).current_dir(root).stdin(Stdio::null()).process_group(0);
    for (name, _) in variables {
        let text = name.to_string_lossy();
        let of_cargo_run = OF_CARGO_RUN.iter().any(|prefix| text.starts_with(prefix));
        if of_cargo_run || text.starts_with("SIGHTLINE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Builds all programs of the workspace; cargo shows its own progress.
pub fn programs(root: &Path, release: bool, interrupt: &Interrupt) -> Result<()> {
    let mut command = cargo(root);
    command.args(["build", "--workspace", "--bins"]);
    if release {
        command.arg("--release");
    }
    let mut child = spawn_from_lasting_thread(command).context("start cargo")?;
    let status = wait(&mut child, interrupt)?;
    if !status.success() {
        bail!("cargo build {}", describe_exit(status));
    }
    Ok(())
}

/// Waits for a command of [`cargo`]. On an interrupt everything that it started goes with it.
pub fn wait(child: &mut Child, interrupt: &Interrupt) -> Result<ExitStatus> {
    watch(child, interrupt, |_| {})
}

/// As [`wait`], and has a look at it again and again meanwhile.
pub fn watch(child: &mut Child, interrupt: &Interrupt, look: impl Fn(Pid)) -> Result<ExitStatus> {
    let waited = interrupt.wait_for(FOREVER, || {
        look(Pid::from_child(child));
        child.try_wait().context("wait for cargo")
    });
    if let Ok(Some(status)) = waited {
        return Ok(status);
    }
    let group = Pid::from_child(child);
    let _ = kill_process_group(group, Signal::TERM);
    let end = Instant::now() + STOP_DEADLINE;
    while child.try_wait().context("wait for cargo")?.is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = kill_process_group(group, Signal::KILL);
    let status = child.wait().context("wait for cargo")?;
    interrupt.check()?;
    Ok(status)
}
