//! What the registry can be told.

use std::net::SocketAddr;
use std::time::Duration;

use settings::Secret;

use crate::presence::Thresholds;

/// Keeps the registry of everything that reports, and whether it is there.
#[derive(clap::Parser, Debug, Clone)]
#[command(name = "registry", version, about)]
pub struct Config {
    #[command(flatten)]
    pub process: lifecycle::Settings,
    #[command(flatten)]
    pub tls: rpc::Settings,
    #[command(flatten)]
    pub store: store::Settings,
    #[command(flatten)]
    pub bus: bus::Settings,
    #[command(flatten)]
    pub registry: Settings,
    /// Where auth's gRPC API is
    #[arg(long, env = "SIGHTLINE_AUTH_URL")]
    pub auth_url: String,
}

/// What is the registry's own.
#[derive(clap::Args, Debug, Clone)]
pub struct Settings {
    /// Address of the gRPC API
    #[arg(long, env = "SIGHTLINE_GRPC_LISTEN", default_value = "0.0.0.0:9502")]
    pub grpc_listen: SocketAddr,
    /// `redis://[user:password@]host:port[/database]`, where gateways leave heartbeats
    #[arg(long, env = "SIGHTLINE_REDIS_URL")]
    pub redis_url: Secret,
    /// Silence after which a resource is idle
    #[arg(long, env = "SIGHTLINE_IDLE_AFTER", default_value = "10s", value_parser = settings::duration)]
    pub idle_after: Duration,
    /// Silence after which a resource is offline
    #[arg(long, env = "SIGHTLINE_OFFLINE_AFTER", default_value = "60s", value_parser = settings::duration)]
    pub offline_after: Duration,
}

impl Settings {
    /// The silences that matter.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        Thresholds { idle_after: self.idle_after, offline_after: self.offline_after }
    }
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        // Gateways leave heartbeats every 2 s.
        if self.registry.idle_after < Duration::from_secs(4) {
            wrong.push("--idle-after is under 4s, but heartbeats come every 2s: resources would flap".to_owned());
        }
        if self.registry.offline_after <= self.registry.idle_after {
            wrong.push("--offline-after must be longer than --idle-after".to_owned());
        }
        wrong
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "registry";
    const ADMIN_PORT: u16 = 9402;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
