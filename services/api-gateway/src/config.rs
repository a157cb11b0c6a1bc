//! What the api-gateway can be told.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

/// The whole configuration.
#[derive(clap::Parser, Debug)]
#[command(name = "api-gateway", version, about = "Serves Sightline's API to browsers and API clients")]
pub struct Config {
    #[command(flatten)]
    pub process: lifecycle::Settings,
    #[command(flatten)]
    pub tls: rpc::Settings,
    #[command(flatten)]
    pub bus: bus::Settings,
    #[command(flatten)]
    pub edge: edge::Settings,
    /// Address of the API
    #[arg(long, env = "SIGHTLINE_HTTP_LISTEN", default_value = "0.0.0.0:8080")]
    pub http_listen: SocketAddr,
    /// Base URL of the metrics store's Prometheus API
    #[arg(long, env = "SIGHTLINE_METRICS_URL")]
    pub metrics_url: Url,
    /// Bytes of one answer of the metrics store; a larger one is refused or cut off
    #[arg(long, env = "SIGHTLINE_QUERY_ANSWER_MAX_BYTES", default_value = "64MiB", value_parser = settings::bytes)]
    pub query_answer_max_bytes: u64,
    /// Metric queries of one tenant at a time; more wait for a while
    #[arg(long, env = "SIGHTLINE_QUERIES_PER_TENANT", default_value_t = 16)]
    pub queries_per_tenant: usize,
    /// Metric queries of all tenants at a time
    #[arg(long, env = "SIGHTLINE_QUERIES", default_value_t = 64)]
    pub queries: usize,
    /// How long one metric query may take
    #[arg(long, env = "SIGHTLINE_QUERY_TIMEOUT", default_value = "30s", value_parser = settings::duration)]
    pub query_timeout: Duration,
    /// Address of auth, as https://host:port
    #[arg(long, env = "SIGHTLINE_AUTH_URL")]
    pub auth_url: String,
    /// Address of the registry, as https://host:port
    #[arg(long, env = "SIGHTLINE_REGISTRY_URL")]
    pub registry_url: String,
    /// Address of the log-writer's search, as https://host:port
    #[arg(long, env = "SIGHTLINE_LOG_WRITER_URL")]
    pub log_writer_url: String,
    /// Address of the rule-engine, as https://host:port
    #[arg(long, env = "SIGHTLINE_RULE_ENGINE_URL")]
    pub rule_engine_url: String,
    /// Address of the alert-service, as https://host:port
    #[arg(long, env = "SIGHTLINE_ALERT_SERVICE_URL")]
    pub alert_service_url: String,
    /// Address of the dispatcher, as https://host:port
    #[arg(long, env = "SIGHTLINE_DISPATCHER_URL")]
    pub dispatcher_url: String,
    /// Address of ws-fanout, as http://host:port, or https:// where it speaks TLS with a certificate of the services' CA
    #[arg(long, env = "SIGHTLINE_WS_FANOUT_URL")]
    pub ws_fanout_url: Url,
    /// Admin addresses that `/api/v1/status` asks, as name=http://host:port, separated by commas; every address of a name is
    /// a replica
    #[arg(long, env = "SIGHTLINE_STATUS_TARGETS", value_delimiter = ',')]
    pub status_targets: Vec<Target>,
}

/// A process whose readiness `/api/v1/status` shows.
#[derive(Debug, Clone)]
pub struct Target {
    pub name: String,
    pub url: Url,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) = text.split_once('=').ok_or("write name=http://host:port")?;
        let url = url.parse().map_err(|error| format!("`{url}` is no URL: {error}"))?;
        Ok(Self { name: name.to_owned(), url })
    }
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = self.edge.check();
        if !matches!(self.ws_fanout_url.scheme(), "http" | "https") {
            wrong.push("SIGHTLINE_WS_FANOUT_URL must be an http:// or https:// address".to_owned());
        }
        if self.queries == 0 || self.queries_per_tenant == 0 {
            wrong.push("SIGHTLINE_QUERIES and SIGHTLINE_QUERIES_PER_TENANT must be at least 1".to_owned());
        }
        wrong
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "api-gateway";
    const ADMIN_PORT: u16 = 9409;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
