//! What ws-fanout can be told.

use std::net::SocketAddr;
use std::time::Duration;

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
    /// Address of the WebSockets
    #[arg(long, env = "SIGHTLINE_HTTP_LISTEN", default_value = "0.0.0.0:8081")]
    pub http_listen: SocketAddr,
    /// Address of auth, as https://host:port
    #[arg(long, env = "SIGHTLINE_AUTH_URL")]
    pub auth_url: String,
    /// Frames that wait for one client at the most; beyond it the oldest are dropped and the client is told
    #[arg(long, env = "SIGHTLINE_LIVE_QUEUE", default_value_t = 2_048)]
    pub queue: usize,
    /// How long a client may take to read one frame before it is closed
    #[arg(long, env = "SIGHTLINE_LIVE_STALLED_AFTER", default_value = "30s", value_parser = settings::duration)]
    pub stalled_after: Duration,
    /// Clients that this process serves at the most
    #[arg(long, env = "SIGHTLINE_LIVE_CLIENTS", default_value_t = 2_000)]
    pub clients: usize,
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        if self.queue > 0 && self.clients > 0 {
            return Vec::new();
        }
        vec!["SIGHTLINE_LIVE_QUEUE and SIGHTLINE_LIVE_CLIENTS must be at least 1".to_owned()]
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "ws-fanout";
    const ADMIN_PORT: u16 = 9410;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
