//! What the alert-service can be told.

use std::net::SocketAddr;
use std::time::Duration;

/// The whole configuration.
#[derive(clap::Parser, Debug, Clone)]
#[command(name = "alert-service", version, about = "Turns transitions of rules into alerts and notifications")]
pub struct Config {
    #[command(flatten)]
    pub process: lifecycle::Settings,
    #[command(flatten)]
    pub database: ::store::Settings,
    #[command(flatten)]
    pub bus: bus::Settings,
    #[command(flatten)]
    pub tls: rpc::Settings,
    #[command(flatten)]
    pub alerts: Settings,
    /// Address of auth, as https://host:port
    #[arg(long, env = "SIGHTLINE_AUTH_URL")]
    pub auth_url: String,
}

/// What is the alert-service's own.
#[derive(clap::Args, Debug, Clone)]
pub struct Settings {
    /// Address of the gRPC API
    #[arg(long, env = "SIGHTLINE_GRPC_LISTEN", default_value = "0.0.0.0:9506")]
    pub grpc_listen: SocketAddr,
    /// How long alerts that are over are kept, with their transitions and what became of their notifications
    #[arg(long, env = "SIGHTLINE_ALERT_RETENTION", default_value = "90d", value_parser = settings::duration)]
    pub alert_retention: Duration,
    /// How long a transition waits for the one before it at the most, while it can be looked for: what a killed replica held
    /// comes again within seconds. Where nothing before it is under way any more it waits for two seconds
    #[arg(long, env = "SIGHTLINE_ALERT_PREDECESSOR_WAIT", default_value = "20s", value_parser = settings::duration)]
    pub alert_predecessor_wait: Duration,
}

/// A transition that waited longer than the retention is not applied, so that one cannot be short.
const LEAST_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        if self.alerts.alert_retention < LEAST_RETENTION {
            return vec![
                "SIGHTLINE_ALERT_RETENTION must be at least 7d, since older transitions are not applied".into(),
            ];
        }
        Vec::new()
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "alert-service";
    const ADMIN_PORT: u16 = 9406;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
