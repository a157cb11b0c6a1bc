//! What ws-fanout can be told.

use std::net::SocketAddr;
use std::time::Duration;

use edge::{TlsFiles, TlsMode};
use model::Times;

/// The whole configuration.
#[derive(clap::Parser, Debug, Clone)]
#[command(name = "ws-fanout", version, about = "Shows metrics, logs and alerts live over WebSockets")]
pub struct Config {
    #[command(flatten)]
    pub process: lifecycle::Settings,
    #[command(flatten)]
    pub tls: rpc::Settings,
    #[command(flatten)]
    pub bus: bus::Settings,
    #[command(flatten)]
    pub edge: edge::Settings,
    /// Address of the WebSockets
    #[arg(long, env = "SIGHTLINE_HTTP_LISTEN", default_value = "0.0.0.0:8081")]
    pub http_listen: SocketAddr,
    /// Whether those who open them speak TLS: `optional` tells both apart by the first byte of a connection; the certificate is
    /// this service's own
    #[arg(long = "live-tls", env = "SIGHTLINE_LIVE_TLS", default_value = "optional")]
    pub live_tls: TlsMode,
    /// Address of auth, as https://host:port
    #[arg(long, env = "SIGHTLINE_AUTH_URL")]
    pub auth_url: String,
    #[command(flatten)]
    pub live: Live,
}

/// How streams are shown.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Live {
    /// Bytes of frames that wait for one client at the most; beyond it the oldest are dropped and the client is told
    #[arg(long = "live-queue", env = "SIGHTLINE_LIVE_QUEUE", default_value = "4MiB", value_parser = settings::bytes)]
    pub queue: u64,
    /// The same for all clients together: where many listen, each has its part of it
    #[arg(long = "live-memory", env = "SIGHTLINE_LIVE_MEMORY", default_value = "256MiB", value_parser = settings::bytes)]
    pub memory: u64,
    /// Bytes of frames that one message of the broker may become; what is beyond counts as dropped. A few kilobytes of labels
    /// are repeated with each of thousands of samples
    #[arg(long = "live-message-bytes", env = "SIGHTLINE_LIVE_MESSAGE_BYTES", default_value = "16MiB", value_parser = settings::bytes)]
    pub message_bytes: u64,
    /// How long a client may take to read one frame before it is closed
    #[arg(long = "live-stalled-after", env = "SIGHTLINE_LIVE_STALLED_AFTER", default_value = "30s", value_parser = settings::duration)]
    pub stalled_after: Duration,
    /// Clients that this process serves at the most
    #[arg(long = "live-clients", env = "SIGHTLINE_LIVE_CLIENTS", default_value_t = 2_000)]
    pub clients: usize,
    /// Clients of one tenant at the most, so that others find room
    #[arg(long = "live-tenant-clients", env = "SIGHTLINE_LIVE_TENANT_CLIENTS", default_value_t = 1_000)]
    pub tenant_clients: usize,
    /// How far this process may fall behind a stream before it goes on with what is published now, telling its clients
    #[arg(long = "live-behind", env = "SIGHTLINE_LIVE_BEHIND", default_value = "5s", value_parser = settings::duration)]
    pub behind: Duration,
    /// How far ahead a time may be that is believed
    #[arg(long, env = "SIGHTLINE_CLOCK_SKEW", default_value = model::CLOCK_SKEW, value_parser = settings::duration)]
    pub clock_skew: Duration,
    /// How old a sample may be that is shown
    #[arg(long, env = "SIGHTLINE_METRICS_RETENTION", default_value = model::METRICS_RETENTION, value_parser = settings::duration)]
    pub metrics_retention: Duration,
    /// How old a line's time may be that is believed
    #[arg(long, env = "SIGHTLINE_LOG_RETENTION", default_value = model::LOG_RETENTION, value_parser = settings::duration)]
    pub log_retention: Duration,
}

impl Live {
    /// Which times of samples are believed.
    pub(crate) fn metric_times(&self) -> Times {
        Times { ahead: self.clock_skew, age: self.metrics_retention }
    }

    /// Which times of lines are believed.
    pub(crate) fn log_times(&self) -> Times {
        Times { ahead: self.clock_skew, age: self.log_retention }
    }
}

impl Config {
    /// The certificate that is shown where TLS is spoken.
    pub(crate) fn tls_files(&self) -> TlsFiles {
        let (certificate, key) = (self.tls.tls_cert_file.clone(), self.tls.tls_key_file.clone());
        TlsFiles { certificate, key, client_ca: None }
    }
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = self.edge.check();
        let live = &self.live;
        if live.queue == 0 || live.clients == 0 || live.tenant_clients == 0 {
            let names = "SIGHTLINE_LIVE_QUEUE, SIGHTLINE_LIVE_CLIENTS and SIGHTLINE_LIVE_TENANT_CLIENTS";
            wrong.push(format!("{names} must be at least 1"));
        }
        if live.queue > live.memory {
            wrong.push("SIGHTLINE_LIVE_MEMORY must not be below SIGHTLINE_LIVE_QUEUE".to_owned());
        }
        if live.memory > 1 << 36 {
            wrong.push("SIGHTLINE_LIVE_MEMORY must be at most 64GiB".to_owned());
        }
        wrong
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "ws-fanout";
    const ADMIN_PORT: u16 = 9410;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
