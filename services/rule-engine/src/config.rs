//! What the service can be told.

use std::net::SocketAddr;

#[derive(clap::Parser, Debug, Clone)]
#[command(name = "rule-engine", version, about = "Keeps rules and evaluates them on the stream")]
pub struct Config {
    #[command(flatten)]
    pub process: lifecycle::Settings,
    /// Address of the gRPC server for rules
    #[arg(long, env = "SIGHTLINE_GRPC_LISTEN", default_value = "0.0.0.0:9505")]
    pub grpc_listen: SocketAddr,
    /// Where auth serves its keys: https://host:port
    #[arg(long, env = "SIGHTLINE_AUTH_URL")]
    pub auth_url: String,
    #[command(flatten)]
    pub tls: rpc::Settings,
    #[command(flatten)]
    pub bus: bus::Settings,
    #[command(flatten)]
    pub store: store::Settings,
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        // One connection listens for changed rules; leases must not queue behind snapshots for the only other one.
        if self.store.database_connections < 4 {
            return vec!["SIGHTLINE_DATABASE_CONNECTIONS must be 4 or more".to_owned()];
        }
        Vec::new()
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "rule-engine";
    const ADMIN_PORT: u16 = 9405;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
