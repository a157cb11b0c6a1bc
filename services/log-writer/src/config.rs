//! What the log-writer can be told.

use std::net::SocketAddr;
use std::time::Duration;

/// The whole configuration.
#[derive(clap::Parser, Debug, Clone)]
#[command(name = "log-writer", version, about = "Stores logs and process snapshots, and searches them")]
pub struct Config {
    #[command(flatten)]
    pub process: lifecycle::Settings,
    #[command(flatten)]
    pub tls: rpc::Settings,
    #[command(flatten)]
    pub bus: bus::Settings,
    #[command(flatten)]
    pub database: store::Settings,
    /// Address of the search API (gRPC)
    #[arg(long, env = "SIGHTLINE_GRPC_LISTEN", default_value = "0.0.0.0:9504")]
    pub grpc_listen: SocketAddr,
    /// Address of auth, as https://host:port
    #[arg(long, env = "SIGHTLINE_AUTH_URL")]
    pub auth_url: String,
    /// How long logs and process snapshots are kept; whole days are dropped
    #[arg(long, env = "SIGHTLINE_LOG_RETENTION", default_value = "30d", value_parser = settings::duration)]
    pub retention: Duration,
    /// How far in the future a record's own time may lie; beyond it the record gets the time of its arrival
    #[arg(long, env = "SIGHTLINE_CLOCK_SKEW", default_value = "10m", value_parser = settings::duration)]
    pub clock_skew: Duration,
    /// Rows that one transaction takes at the most
    #[arg(long, env = "SIGHTLINE_LOG_WRITER_ROWS", default_value_t = 20_000)]
    pub rows: usize,
    /// How long a search may take
    #[arg(long, env = "SIGHTLINE_SEARCH_TIMEOUT", default_value = "10s", value_parser = settings::duration)]
    pub search_timeout: Duration,
    /// Whether a batch that was stored before is left out; `false` only to prove that a test notices duplicates
    #[arg(long, env = "SIGHTLINE_LOG_WRITER_BATCH_CHECK", default_value_t = true, action = clap::ArgAction::Set, hide = true)]
    pub batch_check: bool,
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.rows == 0 {
            wrong.push("SIGHTLINE_LOG_WRITER_ROWS must be at least 1".to_owned());
        }
        if self.retention < Duration::from_secs(86_400) {
            wrong.push("SIGHTLINE_LOG_RETENTION must be at least 1d, since whole days are dropped".to_owned());
        }
        wrong
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "log-writer";
    const ADMIN_PORT: u16 = 9404;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
