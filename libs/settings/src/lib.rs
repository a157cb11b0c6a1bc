//! Reads a program's configuration: flags first, then `SIGHTLINE_*` variables, then defaults.
//!
//! A misspelt variable is not a silence: every `SIGHTLINE_*` name in the environment should be one that some Sightline
//! program knows (`names.txt`, held true by a test in tests-e2e). `--check-config` refuses any other; a running program
//! only says so ([`unknown_names`]), since releases that share a configuration may know different names. A variable marked
//! secret can also be given as `<NAME>_FILE`, the path of a file that holds it.

mod memory;
mod names;
mod secret;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches};

pub use memory::memory;
pub use secret::Secret;

/// A program's whole configuration.
pub trait Settings: CommandFactory + FromArgMatches + Sized {
    /// What one field alone cannot say: sentences about combinations that cannot work, empty when all is well.
    fn check(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What somebody who started the program wants of it.
#[derive(Debug)]
pub enum Asked<S> {
    /// To run with these settings.
    Run(S),
    /// To say this and end.
    Say(String),
}

impl<S> Asked<S> {
    /// The settings, where the program is to run.
    pub fn settings(self) -> Option<S> {
        match self {
            Self::Run(settings) => Some(settings),
            Self::Say(_) => None,
        }
    }
}

/// Reads the process's arguments and environment, or ends the process with a message that says what is wrong.
///
/// `--check-config` ends it too: with 0 when the configuration is usable.
#[expect(clippy::print_stdout, reason = "command-line output")]
pub fn parse<S: Settings>() -> S {
    match read::<S>(std::env::args_os().collect(), &environment()) {
        Ok(Asked::Run(settings)) => settings,
        Ok(Asked::Say(text)) => {
            println!("{text}");
            std::process::exit(0)
        }
        Err(error) => error.exit(),
    }
}

/// What is to be said of `SIGHTLINE_*` variables that this version does not know: they have no effect.
#[must_use]
pub fn unknown_names() -> Vec<String> {
    names::unknown(&environment())
}

fn environment() -> BTreeMap<String, OsString> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
}

/// Reads `arguments` (program name first) and what files in `environment` hold.
///
/// # Errors
/// What is wrong, ready to print; also the answers to `--help` and `--version`.
pub fn read<S: Settings>(
    mut arguments: Vec<OsString>,
    environment: &BTreeMap<String, OsString>,
) -> Result<Asked<S>, clap::Error> {
    let check = Arg::new("check-config")
        .long("check-config")
        .action(ArgAction::SetTrue)
        .help("Check the configuration, say what is wrong with it, and exit");
    let mut command = S::command().arg(check);
    // Asked by a test of every program, with nothing configured.
    if arguments.iter().any(|argument| argument == "--print-variables") {
        return Ok(Asked::Say(variables(&command).join("\n")));
    }
    // Before the values: a setting that seems to be missing may only be misspelt.
    if arguments.iter().any(|argument| argument == "--check-config") {
        let unknown = names::unknown(environment);
        if !unknown.is_empty() {
            return Err(command.error(ErrorKind::InvalidValue, unknown.join("\n")));
        }
    }
    let from_files =
        secret::from_files(&command, environment).map_err(|message| command.error(ErrorKind::Io, message))?;
    let program = arguments.len().min(1);
    arguments.splice(program..program, from_files);
    let matches = command.try_get_matches_from_mut(arguments)?;
    let settings = S::from_arg_matches(&matches)?;
    let wrong = settings.check();
    if !wrong.is_empty() {
        return Err(command.error(ErrorKind::ValueValidation, wrong.join("\n")));
    }
    if matches.get_flag("check-config") {
        return Ok(Asked::Say("the configuration is valid".to_owned()));
    }
    Ok(Asked::Run(settings))
}

fn variables(command: &clap::Command) -> Vec<String> {
    let mut names = Vec::new();
    for argument in command.get_arguments() {
        if let Some(name) = argument.get_env().and_then(|name| name.to_str()) {
            names.push(name.to_owned());
            if secret::is_secret(argument) {
                names.push(format!("{name}_FILE"));
            }
        }
    }
    names
}

/// Value parser for durations: `250ms`, `30s`, `5m`, `1h 30m`.
///
/// # Errors
/// Says which form is wanted.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write a duration such as 250ms, 30s or 5m"))
}

/// Value parser for sizes: plain bytes, or with `KiB`, `MiB`, `GiB`.
///
/// # Errors
/// Says which form is wanted.
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    let (digits, unit) = units
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits.trim(), *unit)))
        .unwrap_or((text, 1));
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| format!("`{text}` is not a size; write bytes, or 64KiB, 16MiB, 1GiB"))
}

/// The same address on any free port, for tests and for `port 0` in help texts.
#[must_use]
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser, Debug)]
    struct Sample {
        #[arg(long, env = "SIGHTLINE_SHUTDOWN_DEADLINE", default_value = "25s", value_parser = duration)]
        deadline: Duration,
        #[arg(long, env = "SIGHTLINE_DATABASE_URL", default_value = "")]
        database_url: Secret,
    }

    impl Settings for Sample {
        fn check(&self) -> Vec<String> {
            if self.deadline.is_zero() {
                vec!["a deadline of 0s would cut every request off".into()]
            } else {
                Vec::new()
            }
        }
    }

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Sample, String> {
        let arguments = std::iter::once("sample").chain(arguments.iter().copied()).map(OsString::from).collect();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), OsString::from(v))).collect();
        match read::<Sample>(arguments, &environment) {
            Ok(Asked::Run(sample)) => Ok(sample),
            Ok(Asked::Say(text)) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_misspelt_variable_stops_the_check_with_the_nearest_name() {
        let error = run(&["--check-config"], &[("SIGHTLINE_NATS_URI", "x")]).unwrap_err();
        assert!(error.contains("SIGHTLINE_NATS_URI") && error.contains("SIGHTLINE_NATS_URL"), "{error}");
    }

    #[test]
    fn a_name_that_only_another_release_knows_stops_nobody() {
        assert!(run(&[], &[("SIGHTLINE_OF_TOMORROW", "x")]).is_ok());
    }

    #[test]
    fn fields_that_contradict_each_other_are_refused() {
        assert!(run(&["--deadline", "0s"], &[]).unwrap_err().contains("cut every request off"));
    }

    #[test]
    fn check_config_says_that_all_is_well() {
        assert!(run(&["--check-config"], &[]).unwrap_err().contains("the configuration is valid"));
    }

    #[test]
    fn a_secret_may_lie_in_a_file() {
        let path = std::env::temp_dir().join(format!("settings-secret-{}", std::process::id()));
        std::fs::write(&path, "postgres://a\n").unwrap();
        let sample = run(&[], &[("SIGHTLINE_DATABASE_URL_FILE", path.to_str().unwrap())]).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(sample.database_url.reveal(), "postgres://a");
        assert!(!format!("{sample:?}").contains("postgres"));
    }

    #[test]
    fn sizes_read_with_units() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("17"), Ok(17));
        assert!(bytes("12 parsecs").is_err());
    }
}
