//! What auth can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Knows who people are, and signs the tokens that prove it.
#[derive(clap::Parser, Debug, Clone)]
#[command(name = "auth", version, about)]
pub struct Config {
    #[command(flatten)]
    pub process: lifecycle::Settings,
    #[command(flatten)]
    pub tls: rpc::Settings,
    #[command(flatten)]
    pub store: store::Settings,
    #[command(flatten)]
    pub auth: Settings,
}

/// What is auth's own.
#[derive(clap::Args, Debug, Clone)]
pub struct Settings {
    /// Address of the gRPC API
    #[arg(long, env = "SIGHTLINE_GRPC_LISTEN", default_value = "0.0.0.0:9508")]
    pub grpc_listen: SocketAddr,
    /// File with the first admin's password. Read when it holds one; otherwise a password is generated and written there,
    /// readable by its owner alone. Used only while there is no admin
    #[arg(long = "initial-password-file", env = "SIGHTLINE_AUTH_INITIAL_PASSWORD_FILE")]
    pub initial_password_file: Option<PathBuf>,
    /// How long an agent's token is good, such as `365d`
    #[arg(
        long = "agent-token-lifetime",
        env = "SIGHTLINE_AUTH_AGENT_TOKEN_LIFETIME",
        default_value = "365d",
        value_parser = settings::duration
    )]
    pub agent_token_lifetime: Duration,
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        if self.auth.agent_token_lifetime < Duration::from_secs(60) {
            return vec![
                "--agent-token-lifetime is under a minute: agents would be cut off before they start".to_owned(),
            ];
        }
        Vec::new()
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "auth";
    const ADMIN_PORT: u16 = 9408;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
