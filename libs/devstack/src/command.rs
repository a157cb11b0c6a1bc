//! What `cargo dev` can do, one file a command.

pub mod bench;
pub mod down;
pub mod logs;
mod silence;
pub mod status;
pub mod test;
pub mod token;
pub mod up;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::console::result;

const USAGE: &str = "\
cargo dev: Sightline on this machine

  cargo dev up                     start everything in the foreground; Ctrl-C stops it
  cargo dev down                   stop a running `up`
  cargo dev status [--json]        health of each process and server
  cargo dev logs NAME [-f]         the log of a service, of the agent or of a server; -f follows it
  cargo dev token                  a bearer token of the development administrator
  cargo dev test [ARGS]            every test on real servers; ARGS go to `cargo test`
  cargo dev bench NAME [--json] [ARGS]   a benchmark, optimised, on real servers
  cargo dev servers                only the four servers, in a temporary folder; Ctrl-C stops them

Ports are moved by SIGHTLINE_DEV_<SERVICE>_<ADMIN|GRPC|HTTP>_PORT and SIGHTLINE_DEV_<NATS|NATS_MONITOR|POSTGRES|REDIS|
METRICS>_PORT. SIGHTLINE_NATS_URL, SIGHTLINE_DATABASE_URL, SIGHTLINE_REDIS_URL and SIGHTLINE_METRICS_URL name servers that
run already. SIGHTLINE_DEV_ONLY_FETCHED=1 leaves the machine's own server programs aside.";

/// Runs one command line, program name left out.
pub fn run(mut arguments: Vec<OsString>) -> Result<ExitCode> {
    if arguments.is_empty() {
        bail!("say what to do\n\n{USAGE}");
    }
    let name = text(arguments.remove(0))?;
    match name.as_str() {
        "up" => none(&arguments).and_then(|()| up::run()),
        "down" => none(&arguments).and_then(|()| down::run()),
        "status" => status::run(one_flag(arguments, None, "json")?),
        "logs" => logs::run(arguments),
        "token" => none(&arguments).and_then(|()| token::run()),
        "test" => test::run(arguments),
        "bench" => bench::run(arguments),
        "servers" => none(&arguments).and_then(|()| test::servers()),
        "help" | "-h" | "--help" => {
            result(USAGE);
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("`cargo dev` knows no command {other}\n\n{USAGE}"),
    }
}

fn none(arguments: &[OsString]) -> Result<()> {
    match arguments.first() {
        Some(argument) => bail!("unexpected argument {}\n\n{USAGE}", argument.display()),
        None => Ok(()),
    }
}

fn one_flag(arguments: Vec<OsString>, short: Option<char>, long: &str) -> Result<bool> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut given = false;
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long(name) if name == long => given = true,
            lexopt::Arg::Short(letter) if Some(letter) == short => given = true,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(given)
}

fn text(argument: OsString) -> Result<String> {
    argument.into_string().ok().context("read the command line: it is not UTF-8")
}
