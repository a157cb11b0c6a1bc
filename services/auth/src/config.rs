//! What auth can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use settings::Secret;

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
    /// File with the key that signing keys are encrypted with in Postgres: 32 bytes or more. Without it they lie in clear
    #[arg(long = "encryption-key-file", env = "SIGHTLINE_AUTH_ENCRYPTION_KEY_FILE")]
    pub encryption_key_file: Option<PathBuf>,
    /// How long a new signing key is published before it signs; longer than any verifier may take to hear of it
    #[arg(
        long = "key-announcement",
        env = "SIGHTLINE_AUTH_KEY_ANNOUNCEMENT",
        default_value = "2m",
        value_parser = settings::duration
    )]
    pub key_announcement: Duration,
    /// For how long after its first use a refresh token gives again what it gave then: to a second window, or after an
    /// answer that was lost. Later, a second use ends the session
    #[arg(
        long = "refresh-leeway",
        env = "SIGHTLINE_AUTH_REFRESH_LEEWAY",
        default_value = "20s",
        value_parser = settings::duration
    )]
    pub refresh_leeway: Duration,
    /// `redis://[user:password@]host:port[/database]`, where replicas count failed logins together
    #[arg(long, env = "SIGHTLINE_REDIS_URL", default_value = "redis://127.0.0.1:6379")]
    pub redis_url: Secret,
    /// What every key in Redis begins with
    #[arg(long, env = "SIGHTLINE_NAMESPACE", default_value = "sl")]
    pub namespace: String,
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
        let mut wrong = Vec::new();
        if self.auth.agent_token_lifetime < Duration::from_secs(60) {
            wrong
                .push("--agent-token-lifetime is under a minute: agents would be cut off before they start".to_owned());
        }
        // Verifiers ask at least this often, and once more after an answer that they missed.
        if self.auth.key_announcement < 3 * authn::WAIT {
            wrong.push(format!(
                "--key-announcement is under {} s: a new key would sign before every verifier has it",
                (3 * authn::WAIT).as_secs()
            ));
        }
        if self.auth.refresh_leeway > Duration::from_secs(60) {
            wrong.push("--refresh-leeway is over a minute: a stolen refresh token would go unnoticed".to_owned());
        }
        wrong
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "auth";
    const ADMIN_PORT: u16 = 9408;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
