//! One child process: its own process group, its output in a log file, and dead when we are.
//!
//! Starting, signalling and reaping only; what to do about a death is the caller's business.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::account::Account;

/// What a child may see of our own environment: enough to run, nothing that configures it.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "TZ", "RUST_BACKTRACE", "SSL_CERT_FILE"];
const INHERITED_PREFIX: &str = "OTEL_";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How to start a process; kept by whoever may have to start it again.
#[derive(Debug, Clone)]
pub struct Spawn {
    pub name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<String, OsString>,
    log: PathBuf,
    account: Option<Account>,
    on_parent_death: &'static str,
    stop_signal: Signal,
}

impl Spawn {
    /// Output is appended to `log`.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: inherited(std::env::vars_os()),
            log: log.into(),
            account: None,
            on_parent_death: "KILL",
            stop_signal: Signal::TERM,
        }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(variables.into_iter().map(|(name, value)| (name, value.into())));
        self
    }

    pub fn run_as(mut self, account: Option<Account>) -> Self {
        self.account = account;
        self
    }

    /// The signal the kernel sends when this program dies, as `setpriv` spells it. KILL unless told: our services lose
    /// nothing by it, while a drain would wait for servers that are gone. Stores that flush late want a softer one.
    pub fn on_parent_death(mut self, signal: &'static str) -> Self {
        self.on_parent_death = signal;
        self
    }

    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    pub fn start(&self) -> Result<Process> {
        let log = open_log(&self.log)?;
        let mut command = bound_to_us(self.on_parent_death, self.account.as_ref());
        command.arg(&self.program).args(&self.args);
        // PostgreSQL wants a working directory that it may enter; nobody needs ours.
        command.env_clear().envs(&self.env).process_group(0).current_dir("/");
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().with_context(|| format!("share the log of {}", self.name))?).stderr(log);
        let child = spawn_from_lasting_thread(command)
            .with_context(|| format!("start {} ({})", self.name, self.program.display()))?;
        Process::adopt(self.name.clone(), child, self.stop_signal)
    }
}

/// A command prefix whose process dies with ours. The caller adds program and arguments.
pub fn bound_to_us(signal: &str, account: Option<&Account>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]);
    if let Some(account) = account {
        command.args(["--reuid", &account.uid.to_string(), "--regid", &account.gid.to_string(), "--clear-groups"]);
    }
    command.arg("--");
    command
}

/// The kernel sends the parent-death signal when the *thread* that forked ends, so one thread that never ends forks
/// all children, whichever test or pool thread asks.
pub fn spawn_from_lasting_thread(command: Command) -> std::io::Result<Child> {
    type Request = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let (answer, outcome) = channel();
    let gone = || std::io::Error::other("the spawning thread is gone");
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}

/// A running child. Dropping it kills its whole group and reaps it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Pid,
    started: Instant,
    stop_signal: Signal,
    exit: Option<ExitStatus>,
}

impl Process {
    fn adopt(name: String, child: Child, stop_signal: Signal) -> Result<Self> {
        let group = Pid::from_child(&child);
        Ok(Self { name, child, group, started: Instant::now(), stop_signal, exit: None })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// How it ended, or `None` while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.exit = Some(status);
            // Grandchildren go with it, now: later the group's number may be somebody else's.
            let _ = kill_process_group(self.group, Signal::KILL);
        }
        self.exit
    }

    pub fn ask_to_stop(&mut self) {
        self.signal(self.stop_signal);
    }

    /// Signals the process alone, not its group.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            let _ = rustix::process::kill_process(self.group, signal);
        }
    }

    /// SIGKILL to the whole group, then reaps.
    pub fn kill(&mut self) {
        if self.exited().is_none() {
            let _ = kill_process_group(self.group, Signal::KILL);
            self.exit = self.child.wait().ok();
        }
    }

    /// Waits up to `deadline`; false if it still runs.
    pub fn wait(&mut self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        while self.exited().is_none() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Asks, waits, then kills. False if it had to be killed.
    pub fn stop(&mut self, deadline: Duration) -> bool {
        self.ask_to_stop();
        let went = self.wait(deadline);
        self.kill();
        went
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks all of them at once, waits until `deadline` or until somebody is in a `hurry`, kills the rest and returns their
/// names.
pub fn stop_together(processes: &mut [&mut Process], deadline: Duration, hurry: impl Fn() -> bool) -> Vec<String> {
    let end = Instant::now() + deadline;
    for process in processes.iter_mut() {
        process.ask_to_stop();
    }
    let mut killed = Vec::new();
    for process in processes.iter_mut() {
        while process.exited().is_none() {
            if hurry() || Instant::now() >= end {
                killed.push(process.name.clone());
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        process.kill();
    }
    killed
}

/// "exit status 1" or "killed by signal 9", for people.
pub fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// A process's start time in clock ticks since boot: with the pid it names one process for good.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in parentheses and may hold anything; field 22 counts from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    (fields.next()? != "Z").then(|| fields.nth(18)?.parse().ok())?
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("open log {}", path.display()))
}

fn inherited(ours: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, OsString> {
    let mut env: BTreeMap<String, OsString> = ours
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| INHERITED.contains(&name.as_str()) || name.starts_with(INHERITED_PREFIX))
        .collect();
    env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.into());
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, log: &Path) -> Process {
        Spawn::new("sh", "/bin/sh", log).args(["-c", script]).start().unwrap()
    }

    #[test]
    fn a_child_sees_only_what_it_needs() {
        let ours = [("PATH", "/bin"), ("SIGHTLINE_DEV_NATS_PORT", "1"), ("OTEL_SERVICE_NAME", "x"), ("SECRET", "y")];
        let env = inherited(ours.into_iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(env.keys().collect::<Vec<_>>(), ["OTEL_SERVICE_NAME", "PATH"]);
    }

    #[test]
    fn output_reaches_the_log_and_the_exit_status_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("logs/sh.log");
        let mut process = sh("echo out; echo err >&2; exit 3", &log);
        assert!(process.wait(Duration::from_secs(10)));
        assert_eq!(process.exited().and_then(|status| status.code()), Some(3));
        assert_eq!(std::fs::read_to_string(log).unwrap(), "out\nerr\n");
    }

    #[test]
    fn a_process_that_ignores_the_stop_signal_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("sh.log");
        let mut process = sh("trap '' TERM; echo ready; while :; do sleep 0.1; done", &log);
        while std::fs::read_to_string(&log).unwrap_or_default() != "ready\n" {
            std::thread::yield_now();
        }
        assert!(!process.stop(Duration::from_millis(200)));
        assert_eq!(process.exited().and_then(|status| status.signal()), Some(9));
    }

    #[test]
    fn the_group_goes_with_its_leader() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("sh.log");
        let process = sh("sleep 600 & echo $!; wait", &log);
        let grandchild: u32 = loop {
            if let Ok(pid) = std::fs::read_to_string(&log).unwrap_or_default().trim().parse() {
                break pid;
            }
            std::thread::yield_now();
        };
        assert!(start_time(grandchild).is_some());
        drop(process);
        while start_time(grandchild).is_some() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("sh.log");
        let mut process = std::thread::spawn(move || sh("sleep 600", &log)).join().unwrap();
        assert!(!process.wait(Duration::from_millis(200)));
    }
}
