//! What the agent can be told.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tonic::transport::Uri;

use crate::host_root::HostRoot;
use crate::spool::Room;
use crate::tail::{self, Linger};

#[derive(Parser, Debug, Clone)]
#[command(name = "agent", version, about = "Reports this host's metrics, logs and processes to a Sightline gateway")]
pub struct Config {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where to send: `https://host:4317`, or `http://` for a gateway without TLS
    #[arg(long, env = "SIGHTLINE_AGENT_ENDPOINT", default_value = "http://127.0.0.1:4317")]
    pub endpoint: Uri,
    /// PEM file of the CA that the gateway's certificate must come from; with https and without it, the CAs that this
    /// system trusts
    #[arg(long, env = "SIGHTLINE_AGENT_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// File that holds this agent's bearer token; read again when it changes
    #[arg(long, env = "SIGHTLINE_AGENT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Folder for the agent's id, log positions and unsent requests; one agent a folder
    #[arg(long, env = "SIGHTLINE_AGENT_STATE_DIR", default_value = "/var/lib/sightline-agent", global = true)]
    pub state_dir: PathBuf,
    /// Where the host's file system is seen: in a container, the folder where the host's `/` is mounted. All other paths
    /// of the host, of log files too, are given as they are on the host
    #[arg(long, env = "SIGHTLINE_AGENT_HOST_ROOT", default_value = "/")]
    pub host_root: PathBuf,
    /// Log files to follow, separated by commas; they may not exist yet
    #[arg(long, env = "SIGHTLINE_AGENT_LOG_FILES", value_delimiter = ',')]
    pub log_files: Vec<String>,
    /// How often metrics are collected and sent
    #[arg(long, env = "SIGHTLINE_AGENT_INTERVAL", default_value = "5s", value_parser = settings::duration)]
    pub interval: Duration,
    /// How often a snapshot of all processes is sent
    #[arg(long, env = "SIGHTLINE_AGENT_PROCESS_INTERVAL", default_value = "10s", value_parser = settings::duration)]
    pub process_interval: Duration,
    /// A snapshot of processes that is larger is cut: command lines first, then the processes that use least
    #[arg(long, env = "SIGHTLINE_AGENT_SNAPSHOT_MAX_BYTES", default_value = "3MiB", value_parser = settings::bytes)]
    pub snapshot_max_bytes: u64,
    /// How much unsent data is kept on disk; beyond it the oldest metrics go, and log files are not read on
    #[arg(long, env = "SIGHTLINE_AGENT_SPOOL_MAX_BYTES", default_value = "64MiB", value_parser = settings::bytes)]
    pub spool_max_bytes: u64,
    /// How much of the metrics is kept in memory while the disk takes nothing
    #[arg(long, env = "SIGHTLINE_AGENT_SPOOL_MEMORY_BYTES", default_value = "8MiB", value_parser = settings::bytes)]
    pub spool_memory_bytes: u64,
    /// How often log files are looked at
    #[arg(long, env = "SIGHTLINE_AGENT_POLL_INTERVAL", default_value = "50ms", value_parser = settings::duration)]
    pub poll_interval: Duration,
    /// How long a log line may wait for others to travel with; the first after a quiet time does not wait
    #[arg(long, env = "SIGHTLINE_AGENT_LINGER", default_value = "250ms", value_parser = settings::duration)]
    pub linger: Duration,
    /// Log lines of this size wait for no others
    #[arg(long, env = "SIGHTLINE_AGENT_LINGER_BYTES", default_value = "64KiB", value_parser = settings::bytes)]
    pub linger_bytes: u64,
    /// What is kept of one log line; the rest of it is cut off
    #[arg(long, env = "SIGHTLINE_AGENT_LINE_BYTES", default_value = "64KiB", value_parser = settings::bytes)]
    pub line_bytes: u64,
    /// How long a rotated log file is still read: programs write to it until they reopen their log
    #[arg(long, env = "SIGHTLINE_AGENT_DRAIN_TIME", default_value = "10s", value_parser = settings::duration)]
    pub drain_time: Duration,
    /// How long it is remembered how far a log file was read that is not there any more
    #[arg(long, env = "SIGHTLINE_AGENT_FORGET_AFTER", default_value = "7d", value_parser = settings::duration)]
    pub forget_after: Duration,
    /// How long a gateway may take to answer one request
    #[arg(long, env = "SIGHTLINE_AGENT_EXPORT_TIMEOUT", default_value = "15s", value_parser = settings::duration)]
    pub export_timeout: Duration,
    /// How long a stop may spend on sending; the rest stays on disk
    #[arg(long, env = "SIGHTLINE_AGENT_FLUSH_TIME", default_value = "3s", value_parser = settings::duration)]
    pub flush_time: Duration,
    #[command(flatten)]
    pub process: lifecycle::Settings,
}

#[derive(Subcommand, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Print this agent's id, creating it if there is none yet, and exit
    Id,
}

/// A request of logs can reach a little more than half of it, and there must always be room for some.
const SMALLEST_SPOOL_BYTES: u64 = 4 << 20;
/// A gateway takes texts of up to 256 KiB; what is no UTF-8 can grow threefold.
const LINE_BYTES: RangeInclusive<u64> = 1024..=80 * 1024;
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const SHORTEST_POLL: Duration = Duration::from_millis(10);
const LONGEST_LINGER: Duration = Duration::from_secs(60);

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        match (self.endpoint.scheme_str(), &self.ca_file) {
            (Some("http"), Some(_)) => wrong.push(
                "SIGHTLINE_AGENT_CA_FILE is set, but SIGHTLINE_AGENT_ENDPOINT is http and would not use TLS".to_owned(),
            ),
            (Some("http" | "https"), _) => {}
            _ => {
                wrong.push(format!("SIGHTLINE_AGENT_ENDPOINT `{}` must begin with http:// or https://", self.endpoint))
            }
        }
        for (name, interval) in
            [("SIGHTLINE_AGENT_INTERVAL", self.interval), ("SIGHTLINE_AGENT_PROCESS_INTERVAL", self.process_interval)]
        {
            if interval < SHORTEST_INTERVAL {
                wrong.push(format!("{name} must be 100ms or longer"));
            }
        }
        if self.spool_max_bytes < SMALLEST_SPOOL_BYTES {
            wrong.push("SIGHTLINE_AGENT_SPOOL_MAX_BYTES must be 4MiB or more".to_owned());
        }
        if !LINE_BYTES.contains(&self.line_bytes) {
            wrong.push("SIGHTLINE_AGENT_LINE_BYTES must be between 1KiB and 80KiB".to_owned());
        }
        if self.poll_interval < SHORTEST_POLL {
            wrong.push("SIGHTLINE_AGENT_POLL_INTERVAL must be 10ms or longer".to_owned());
        }
        if self.linger > LONGEST_LINGER {
            wrong.push("SIGHTLINE_AGENT_LINGER must be 1m or shorter".to_owned());
        }
        if self.export_timeout.is_zero() {
            wrong.push("SIGHTLINE_AGENT_EXPORT_TIMEOUT must be longer than nothing".to_owned());
        }
        if !self.host_root.is_absolute() {
            wrong.push(format!("SIGHTLINE_AGENT_HOST_ROOT `{}` must be an absolute path", self.host_root.display()));
        }
        if let Some(path) = self.log_paths().iter().find(|path| !path.starts_with('/')) {
            wrong.push(format!("SIGHTLINE_AGENT_LOG_FILES: `{path}` must be an absolute path"));
        }
        wrong
    }
}

impl Config {
    pub fn tail(&self) -> tail::Options {
        tail::Options {
            root: HostRoot::new(&self.host_root),
            line_bytes: size(self.line_bytes),
            drain_time: self.drain_time,
            forget_after: self.forget_after,
        }
    }

    pub fn linger(&self) -> Linger {
        Linger { longest: self.linger, bytes: size(self.linger_bytes) }
    }

    pub fn room(&self) -> Room {
        Room { bytes: self.spool_max_bytes, memory_bytes: self.spool_memory_bytes }
    }

    /// The log files, each once: an empty variable and a trailing comma name none.
    pub fn log_paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = Vec::new();
        for path in self.log_files.iter().map(|path| path.trim()).filter(|path| !path.is_empty()) {
            if !paths.iter().any(|known| known == path) {
                paths.push(path.to_owned());
            }
        }
        paths
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "agent";
    const ADMIN_PORT: u16 = 9411;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use super::*;

    fn read(arguments: &[&str]) -> Result<Config, String> {
        let arguments = std::iter::once("agent").chain(arguments.iter().copied()).map(OsString::from).collect();
        settings::read(arguments, &BTreeMap::new())
            .map(|asked| asked.settings().unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_reach_a_gateway_on_this_machine() {
        let config = read(&[]).unwrap();
        assert_eq!(config.endpoint.to_string(), "http://127.0.0.1:4317/");
        assert_eq!((config.interval, config.spool_max_bytes), (Duration::from_secs(5), 64 << 20));
        assert!(config.log_paths().is_empty() && config.command.is_none());
    }

    #[test]
    fn a_ca_without_tls_is_refused_and_tls_without_a_ca_is_not() {
        assert!(read(&["--endpoint", "https://g:4317"]).is_ok());
        assert!(
            read(&["--endpoint", "http://g:4317", "--ca-file", "/ca.pem"]).unwrap_err().contains("would not use TLS")
        );
        assert!(read(&["--endpoint", "g:4317"]).is_err());
        assert!(read(&["--endpoint", "https://g:4317", "--ca-file", "/ca.pem"]).is_ok());
    }

    #[test]
    fn log_files_are_absolute_and_named_once() {
        let config = read(&["--log-files", "/a.log, /b.log,/a.log,"]).unwrap();
        assert_eq!(config.log_paths(), ["/a.log", "/b.log"]);
        assert!(read(&["--log-files", "a.log"]).unwrap_err().contains("absolute"));
    }

    #[test]
    fn useless_limits_are_refused() {
        assert!(read(&["--interval", "0s"]).is_err());
        for (name, value) in [
            ("--spool-max-bytes", "1KiB"),
            ("--line-bytes", "1MiB"),
            ("--line-bytes", "10"),
            ("--poll-interval", "0s"),
            ("--linger", "1h"),
            ("--export-timeout", "0s"),
            ("--host-root", "host"),
        ] {
            assert!(read(&[name, value]).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn the_id_command_takes_the_state_folder() {
        let config = read(&["id", "--state-dir", "/tmp/x"]).unwrap();
        assert_eq!((config.command, config.state_dir), (Some(Command::Id), PathBuf::from("/tmp/x")));
    }
}
