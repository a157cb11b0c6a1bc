//! What the agent can be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tonic::transport::Uri;

#[derive(Parser, Debug, Clone)]
#[command(name = "agent", version, about = "Reports this host's metrics, logs and processes to a Sightline gateway")]
pub struct Config {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where to send: `https://host:4317`, or `http://` for a gateway without TLS
    #[arg(long, env = "SIGHTLINE_AGENT_ENDPOINT", default_value = "http://127.0.0.1:4317")]
    pub endpoint: Uri,
    /// PEM file of the CA that the gateway's certificate must come from; needed with https
    #[arg(long, env = "SIGHTLINE_AGENT_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// File that holds this agent's bearer token; read again when it changes
    #[arg(long, env = "SIGHTLINE_AGENT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Folder for the agent's id, log positions and unsent batches; one agent a folder
    #[arg(long, env = "SIGHTLINE_AGENT_STATE_DIR", default_value = "/var/lib/sightline-agent", global = true)]
    pub state_dir: PathBuf,
    /// Log files to follow, separated by commas; they may not exist yet
    #[arg(long, env = "SIGHTLINE_AGENT_LOG_FILES", value_delimiter = ',')]
    pub log_files: Vec<String>,
    /// How often metrics are collected and sent
    #[arg(long, env = "SIGHTLINE_AGENT_INTERVAL", default_value = "5s", value_parser = settings::duration)]
    pub interval: Duration,
    /// How often a snapshot of all processes is sent
    #[arg(long, env = "SIGHTLINE_AGENT_PROCESS_INTERVAL", default_value = "10s", value_parser = settings::duration)]
    pub process_interval: Duration,
    /// How much unsent data is kept on disk; beyond it the oldest metrics go, and log files are not read on
    #[arg(long, env = "SIGHTLINE_AGENT_SPOOL_MAX_BYTES", default_value = "64MiB", value_parser = settings::bytes)]
    pub spool_max_bytes: u64,
    #[command(flatten)]
    pub process: lifecycle::Settings,
}

#[derive(Subcommand, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Print this agent's id, creating it if there is none yet, and exit
    Id,
}

/// A batch of logs can reach a little more than half of it, and there must always be room for some.
const SMALLEST_SPOOL_BYTES: u64 = 4 << 20;
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        match (self.endpoint.scheme_str(), &self.ca_file) {
            (Some("https"), None) => wrong.push(
                "SIGHTLINE_AGENT_ENDPOINT is https: SIGHTLINE_AGENT_CA_FILE must name the CA to trust".to_owned(),
            ),
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
        if let Some(path) = self.log_paths().iter().find(|path| !path.starts_with('/')) {
            wrong.push(format!("SIGHTLINE_AGENT_LOG_FILES: `{path}` must be an absolute path"));
        }
        wrong
    }
}

impl Config {
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
    fn tls_and_its_ca_go_together() {
        assert!(read(&["--endpoint", "https://g:4317"]).unwrap_err().contains("SIGHTLINE_AGENT_CA_FILE"));
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
        assert!(read(&["--spool-max-bytes", "1KiB"]).is_err());
    }

    #[test]
    fn the_id_command_takes_the_state_folder() {
        let config = read(&["id", "--state-dir", "/tmp/x"]).unwrap();
        assert_eq!((config.command, config.state_dir), (Some(Command::Id), PathBuf::from("/tmp/x")));
    }
}
