//! What the metric-writer can be told.

use std::time::Duration;

use url::Url;

/// The whole configuration.
#[derive(clap::Parser, Debug, Clone)]
#[command(
    name = "metric-writer",
    version,
    about = "Stores metrics: from the broker to VictoriaMetrics, each sample once"
)]
pub struct Config {
    #[command(flatten)]
    pub process: lifecycle::Settings,
    #[command(flatten)]
    pub bus: bus::Settings,
    /// Base URL of VictoriaMetrics (single node), for example http://127.0.0.1:8428
    #[arg(long, env = "SIGHTLINE_METRICS_URL", default_value = "http://127.0.0.1:8428")]
    pub metrics_url: Url,
    /// How long one write may take before it counts as failed and is repeated
    #[arg(long, env = "SIGHTLINE_METRIC_WRITE_TIMEOUT", default_value = "15s", value_parser = settings::duration)]
    pub write_timeout: Duration,
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if !matches!(self.metrics_url.scheme(), "http" | "https") {
            wrong.push("SIGHTLINE_METRICS_URL must begin with http:// or https://".to_owned());
        }
        // The broker gives an envelope to another replica after half a minute of silence.
        if self.write_timeout > Duration::from_secs(30) {
            wrong.push("SIGHTLINE_METRIC_WRITE_TIMEOUT must be at most 30s".to_owned());
        }
        wrong
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "metric-writer";
    const ADMIN_PORT: u16 = 9403;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
