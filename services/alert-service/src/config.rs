//! What the alert-service can be told.

use std::net::SocketAddr;

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
    /// Address of the gRPC API
    #[arg(long, env = "SIGHTLINE_GRPC_LISTEN", default_value = "0.0.0.0:9506")]
    pub grpc_listen: SocketAddr,
    /// Address of auth, as https://host:port
    #[arg(long, env = "SIGHTLINE_AUTH_URL")]
    pub auth_url: String,
}

impl settings::Settings for Config {}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "alert-service";
    const ADMIN_PORT: u16 = 9406;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
