//! What the metric-writer can be told.

use std::time::Duration;

use model::Times;
use url::Url;

/// Of the memory that the process may use, what series take unless told otherwise.
const CACHE_SHARE: u64 = 8;
const CACHE_BOUNDS: (u64, u64) = (32 << 20, 512 << 20);
/// Requests in which a group may be written, about.
const MOST_REQUESTS: u64 = 64;

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
    /// Samples that are written together at most
    #[arg(long, env = "SIGHTLINE_METRIC_WRITE_SAMPLES", default_value_t = 100_000)]
    pub write_samples: usize,
    /// Bytes of labels and samples that are written together at most
    #[arg(long, env = "SIGHTLINE_METRIC_WRITE_BYTES", default_value = "32MiB", value_parser = settings::bytes)]
    pub write_bytes: u64,
    /// Bytes of one write request at most, before it is compressed
    #[arg(long, env = "SIGHTLINE_METRIC_REQUEST_BYTES", default_value = "8MiB", value_parser = settings::bytes)]
    pub request_bytes: u64,
    /// Memory for the labels of series that are reported; an eighth of what the process may use, 32MiB to 512MiB, when it
    /// is not set
    #[arg(long, env = "SIGHTLINE_SERIES_CACHE", value_parser = settings::bytes)]
    pub series_cache: Option<u64>,
    /// How far the time of a sample may be ahead of the gateway's
    #[arg(long, env = "SIGHTLINE_CLOCK_SKEW", default_value = model::CLOCK_SKEW, value_parser = settings::duration)]
    pub clock_skew: Duration,
    /// How long the metrics store keeps samples (its -retentionPeriod); older ones are refused
    #[arg(long, env = "SIGHTLINE_METRICS_RETENTION", default_value = model::METRICS_RETENTION, value_parser = settings::duration)]
    pub metrics_retention: Duration,
}

impl Config {
    /// Which times of samples are believed.
    #[must_use]
    pub fn times(&self) -> Times {
        Times { ahead: self.clock_skew, age: self.metrics_retention }
    }

    /// Bytes of series that are remembered.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        let (least, most) = CACHE_BOUNDS;
        let bytes = self.series_cache.unwrap_or_else(|| (settings::memory() / CACHE_SHARE).clamp(least, most));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
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
        if self.write_samples == 0 {
            wrong.push("SIGHTLINE_METRIC_WRITE_SAMPLES must be at least 1".to_owned());
        }
        // VictoriaMetrics refuses requests of more than 32 MiB, and one series of a request has up to 64 KiB of labels.
        if !(64 << 10..=16 << 20).contains(&self.request_bytes) {
            wrong.push("SIGHTLINE_METRIC_REQUEST_BYTES must be between 64KiB and 16MiB".to_owned());
        }
        if self.write_bytes < self.request_bytes {
            wrong.push("SIGHTLINE_METRIC_WRITE_BYTES must be at least SIGHTLINE_METRIC_REQUEST_BYTES".to_owned());
        }
        // All requests of a group have to pass within one try.
        if self.write_bytes / MOST_REQUESTS > self.request_bytes {
            wrong.push(format!(
                "SIGHTLINE_METRIC_WRITE_BYTES must be at most {MOST_REQUESTS} times SIGHTLINE_METRIC_REQUEST_BYTES"
            ));
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use settings::Settings as _;

    use super::*;

    #[test]
    fn sizes_that_contradict_each_other_are_refused() {
        let wrong = |arguments: &[&str]| Config::parse_from(["metric-writer"].iter().chain(arguments)).check();
        assert_eq!(wrong(&[]), Vec::<String>::new());
        assert_eq!(wrong(&["--request-bytes", "32MiB", "--write-bytes", "16MiB", "--write-samples", "0"]).len(), 3);
        assert_eq!(wrong(&["--request-bytes", "64KiB"]).len(), 1);
        assert_eq!(wrong(&["--request-bytes", "512KiB"]), Vec::<String>::new());
        assert_eq!(wrong(&["--write-timeout", "31s", "--metrics-url", "ftp://x"]).len(), 2);
    }

    #[test]
    fn the_cache_has_a_share_of_the_memory_unless_told() {
        let bytes = |arguments: &[&str]| Config::parse_from(["metric-writer"].iter().chain(arguments)).cache_bytes();
        assert!((32 << 20..=512 << 20).contains(&bytes(&[])));
        assert_eq!(bytes(&["--series-cache", "1MiB"]), 1 << 20);
    }
}
