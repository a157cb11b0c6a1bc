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
    /// How often programs and what only writes lines are taken to report until it is learned
    #[arg(long, env = "SIGHTLINE_FIRST_INTERVAL", default_value = "60s", value_parser = settings::duration)]
    pub first_interval: Duration,
    /// The longest interval of reports that is learned; who reports more seldom is idle or offline in between
    #[arg(long, env = "SIGHTLINE_LONGEST_INTERVAL", default_value = "5m", value_parser = settings::duration)]
    pub longest_interval: Duration,
    /// For how long no gateway may say that it is there before silence proves nothing
    #[arg(long, env = "SIGHTLINE_GATEWAYS_AWAY_AFTER", default_value = "10s", value_parser = settings::duration)]
    pub gateways_away_after: Duration,
    /// How long a resource that is offline is kept; what people have tagged stays
    #[arg(long, env = "SIGHTLINE_RESOURCE_RETENTION", default_value = "30d", value_parser = settings::duration)]
    pub resource_retention: Duration,
    /// The same of containers and pods, which do not come back
    #[arg(long, env = "SIGHTLINE_SHORT_LIVED_RETENTION", default_value = "3d", value_parser = settings::duration)]
    pub short_lived_retention: Duration,
}

impl Settings {
    /// The silences that matter.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            idle_after: self.idle_after,
            offline_after: self.offline_after,
            first_interval: self.first_interval,
            longest_interval: self.longest_interval,
        }
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
        if self.registry.resource_retention.min(self.registry.short_lived_retention) <= self.registry.offline_after {
            wrong.push(
                "SIGHTLINE_RESOURCE_RETENTION and SIGHTLINE_SHORT_LIVED_RETENTION must be longer than --offline-after"
                    .to_owned(),
            );
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
