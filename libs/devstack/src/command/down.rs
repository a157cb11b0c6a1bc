//! `cargo dev down`: asks the running `up` to stop and waits until it has.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::console::note;
use crate::interrupt::Interrupt;
use crate::state::Lock;
use crate::workspace::Workspace;

/// Longer than `up` itself gives its children.
const DEADLINE: Duration = Duration::from_secs(90);

pub fn run() -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let state = Workspace::find()?.state();
    let Some(holder) = Lock::holder(&state) else {
        note("nothing runs");
        return Ok(ExitCode::SUCCESS);
    };
    let pid = i32::try_from(holder).ok().and_then(Pid::from_raw).context("read the pid of the running `up`")?;
    kill_process(pid, Signal::TERM).with_context(|| format!("stop `cargo dev up` (pid {holder})"))?;
    let gone = interrupt.wait_for(DEADLINE, || Ok((Lock::holder(&state) != Some(holder)).then_some(())))?;
    if gone.is_none() {
        bail!("`cargo dev up` (pid {holder}) still runs after {} s", DEADLINE.as_secs());
    }
    note("stopped");
    Ok(ExitCode::SUCCESS)
}
