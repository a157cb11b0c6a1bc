//! `cargo dev test`: all tests of the workspace against four servers of their own.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::account;
use crate::build;
use crate::command::silence::Silence;
use crate::configuration::Configuration;
use crate::console::{Step, note, result};
use crate::interrupt::Interrupt;
use crate::previous;
use crate::process::spawn_from_lasting_thread;
use crate::servers::{Binaries, Durability, NAMES, NATS, POSTGRES, Running, ServerUrls, Servers};
use crate::summary::Summary;
use crate::workspace::{Scratch, Workspace};

/// The variable that tells a test where the servers are.
pub const VARIABLE: &str = "SIGHTLINE_TEST_SERVERS";

pub fn run(arguments: Vec<OsString>) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let workspace = Workspace::find()?;
    let configuration = Configuration::from_environment()?;
    let scope = Scope::of(&arguments);
    // Before the present programs, which come to stand where they stood.
    let previous = match scope.programs() {
        Programs::None => None,
        _ => previous::programs(workspace.root(), &workspace.target(), &interrupt)?,
    };
    let temporary = Temporary::start(&configuration, &workspace, scope.programs(), Durability::Throwaway, &interrupt)?;
    let mut command = build::cargo(workspace.root());
    command.args(["test", "--no-fail-fast"]);
    if scope == Scope::Workspace {
        command.arg("--workspace");
    }
    command
        .args(arguments)
        .env(VARIABLE, temporary.variable(workspace.bin(), previous.as_deref())?)
        .stdout(Stdio::piped());
    let mut child = spawn_from_lasting_thread(command).context("start cargo test")?;
    let output = child.stdout.take().context("read the tests' output")?;
    let silence = Arc::new(Silence::default());
    let heard = Arc::clone(&silence);
    let reader = std::thread::spawn(move || pass_through(output, std::io::stdout(), &heard));
    let status = build::watch(&mut child, &interrupt, |cargo| silence.end(cargo));
    let summary = reader.join().unwrap_or_default();
    drop(temporary);
    result(&summary.to_string());
    Ok(exit_code(status?))
}

/// What a command line asks to test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Workspace,
    /// `-p` names packages: cargo would ignore it beside `--workspace`.
    Packages {
        end_to_end: bool,
    },
}

impl Scope {
    fn of(arguments: &[OsString]) -> Self {
        let ours: Vec<&str> =
            arguments.iter().filter_map(|argument| argument.to_str()).take_while(|text| *text != "--").collect();
        let names_packages = ours.iter().any(|text| text.starts_with("-p") || text.starts_with("--package"));
        if !names_packages {
            return Self::Workspace;
        }
        Self::Packages { end_to_end: ours.iter().any(|text| text.contains("tests-e2e")) }
    }

    /// A package's own tests bring its own program; only the end-to-end tests run everybody's.
    fn programs(self) -> Programs {
        match self {
            Self::Workspace | Self::Packages { end_to_end: true } => Programs::Debug,
            Self::Packages { end_to_end: false } => Programs::None,
        }
    }
}

/// Servers to try things on by hand.
pub fn servers() -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let workspace = Workspace::find()?;
    let configuration = Configuration::from_environment()?;
    let scratch = Scratch::create()?;
    let binaries = configuration.search(account::for_postgres()?.as_ref())?.obtain(&NAMES, &interrupt)?;
    let servers = Servers::start_apart(&binaries, scratch.path(), Durability::Throwaway, &interrupt)?;
    result(&variable(&servers.urls, &servers.running, &binaries, workspace.bin(), None)?);
    while !interrupt.requested() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(ExitCode::SUCCESS)
}

/// Four servers in a scratch folder, and the workspace's programs, built.
pub struct Temporary {
    binaries: Binaries,
    urls: ServerUrls,
    // In this order: servers stop before their folder goes.
    servers: Servers,
    _scratch: Scratch,
}

impl Temporary {
    pub fn start(
        configuration: &Configuration,
        workspace: &Workspace,
        programs: Programs,
        durability: Durability,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let scratch = Scratch::create()?;
        let binaries = prepare(configuration, workspace, &NAMES, programs, interrupt)?;
        let step = Step::begin("start", "nats-server, postgres, redis-server, victoria-metrics");
        let servers = Servers::start_apart(&binaries, scratch.path(), durability, interrupt)?;
        step.done("servers are ready");
        let urls = configuration.existing.over(servers.urls.clone());
        Ok(Self { binaries, urls, servers, _scratch: scratch })
    }

    /// `previous` is where the programs of the release before lie, if they are there.
    pub fn variable(&self, bin: &Path, previous: Option<&Path>) -> Result<String> {
        variable(&self.urls, &self.servers.running, &self.binaries, bin, previous)
    }
}

/// Builds, and meanwhile fetches what the machine lacks.
pub fn prepare(
    configuration: &Configuration,
    workspace: &Workspace,
    servers: &[&'static str],
    programs: Programs,
    interrupt: &Interrupt,
) -> Result<Binaries> {
    let search = configuration.search(account::for_postgres()?.as_ref())?;
    std::thread::scope(|scope| {
        let fetch = scope.spawn(|| {
            let found = search.obtain(servers, interrupt);
            // The build may go on for minutes: whoever has to install something by hand wants to know now.
            found.inspect_err(|error| note(&format!("{:>8}  {error:#}", "fetch")))
        });
        let built = build_programs(workspace, programs, interrupt);
        let binaries = fetch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        built.and(binaries)
    })
}

/// Which of the workspace's programs are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    None,
    Debug,
    Release,
}

fn build_programs(workspace: &Workspace, programs: Programs, interrupt: &Interrupt) -> Result<()> {
    if programs == Programs::None {
        return Ok(());
    }
    let step = Step::begin("build", "all programs of the workspace");
    build::programs(workspace.root(), programs == Programs::Release, interrupt)?;
    step.done("programs are built");
    Ok(())
}

fn variable(
    urls: &ServerUrls,
    running: &[Running],
    binaries: &Binaries,
    bin: &Path,
    previous: Option<&Path>,
) -> Result<String> {
    let running =
        running.iter().map(|server| json!({"name": server.name, "pid": server.pid, "version": server.version}));
    let variable = json!({
        "nats": urls.nats,
        "nats_monitor": urls.nats_monitor.as_deref().unwrap_or_default(),
        "postgres": urls.postgres,
        "redis": urls.redis,
        "metrics": urls.metrics,
        "bin_dir": bin,
        "previous_bin_dir": previous,
        "pg_bin": binaries.get(POSTGRES)?.path.parent(),
        "nats_server": binaries.get(NATS)?.path,
        "running": running.collect::<Vec<_>>(),
    });
    Ok(variable.to_string())
}

/// Shows the output as it comes, unbroken, and reads the results on the way.
fn pass_through(mut output: impl Read, mut screen: impl Write, silence: &Silence) -> Summary {
    let mut summary = Summary::default();
    let mut line = Vec::new();
    let mut buffer = [0; 8 << 10];
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        let _ = screen.write_all(&buffer[..count]);
        let _ = screen.flush();
        for byte in &buffer[..count] {
            if *byte == b'\n' {
                let text = String::from_utf8_lossy(&line);
                summary.take(&text);
                silence.hear(&text);
                line.clear();
            } else {
                line.push(*byte);
            }
        }
    }
    summary
}

pub fn exit_code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(arguments: &[&str]) -> Scope {
        Scope::of(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn packages_narrow_the_run_but_arguments_of_the_tests_do_not() {
        assert_eq!(scope(&["some_test"]), Scope::Workspace);
        assert_eq!(scope(&["--", "-p"]), Scope::Workspace);
        assert_eq!(scope(&["-p", "auth"]).programs(), Programs::None);
        assert_eq!(scope(&["--package=tests-e2e"]).programs(), Programs::Debug);
    }

    #[test]
    fn output_is_read_across_the_borders_of_blocks() {
        let lines =
            "noise\n".repeat(3000) + "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(pass_through(lines.as_bytes(), std::io::sink(), &Silence::default()).passed, 5);
    }
}
