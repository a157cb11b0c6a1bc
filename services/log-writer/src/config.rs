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
    #[arg(long, env = "SIGHTLINE_LOG_RETENTION", default_value = model::LOG_RETENTION, value_parser = settings::duration)]
    pub retention: Duration,
    /// How far in the future a record's own time may lie; beyond it the record gets the time of its arrival
    #[arg(long, env = "SIGHTLINE_CLOCK_SKEW", default_value = model::CLOCK_SKEW, value_parser = settings::duration)]
    pub clock_skew: Duration,
    /// Rows that one transaction takes at the most
    #[arg(long, env = "SIGHTLINE_LOG_WRITER_ROWS", default_value_t = 20_000)]
    pub rows: usize,
    /// Bytes of rows that one transaction takes at the most
    #[arg(long, env = "SIGHTLINE_LOG_WRITER_BYTES", default_value = "16MiB", value_parser = settings::bytes)]
    pub bytes: u64,
    /// How long is remembered which batches are stored, at the least: as long as logs are kept, since agents keep what they
    /// could not send however old it is. What the streams still hold is remembered in any case
    #[arg(long, env = "SIGHTLINE_LOG_WRITER_REMEMBERED", default_value = model::LOG_RETENTION, value_parser = settings::duration)]
    pub remembered: Duration,
    /// How long a search may take
    #[arg(long, env = "SIGHTLINE_SEARCH_TIMEOUT", default_value = "10s", value_parser = settings::duration)]
    pub search_timeout: Duration,
    /// Whether a batch that was stored before is left out. With `false`, what is delivered twice is stored twice: for tests
    /// that must notice that
    #[arg(long, env = "SIGHTLINE_LOG_WRITER_BATCH_CHECK", default_value_t = true, action = clap::ArgAction::Set)]
    pub batch_check: bool,
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.database.database_transaction_timeout > self.bus.hold_limit {
            wrong.push(
                "SIGHTLINE_DATABASE_TRANSACTION_TIMEOUT must be at most SIGHTLINE_HOLD_LIMIT, since what is being stored is \
                 held"
                    .to_owned(),
            );
        }
        if self.rows == 0 {
            wrong.push("SIGHTLINE_LOG_WRITER_ROWS must be at least 1".to_owned());
        }
        if self.remembered < Duration::from_secs(86_400) {
            wrong
                .push("SIGHTLINE_LOG_WRITER_REMEMBERED must be at least 1d, since whole days are forgotten".to_owned());
        }
        if self.remembered < self.retention {
            wrong.push(
                "SIGHTLINE_LOG_WRITER_REMEMBERED must be at least SIGHTLINE_LOG_RETENTION, since agents send again what is not \
                 older"
                    .to_owned(),
            );
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
