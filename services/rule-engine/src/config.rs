//! What the service can be told.

use std::net::SocketAddr;
use std::time::Duration;

use model::Times;

use crate::evaluation::Limits;
use crate::signal::Signal;

/// The whole configuration.
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
    #[command(flatten)]
    pub rules: Rules,
}

/// How rules are evaluated.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Rules {
    /// How far in the future a sample's or line's own time may lie
    #[arg(long, env = "SIGHTLINE_CLOCK_SKEW", default_value = model::CLOCK_SKEW, value_parser = settings::duration)]
    pub clock_skew: Duration,
    /// How long the metrics store keeps samples; older ones are not evaluated
    #[arg(long, env = "SIGHTLINE_METRICS_RETENTION", default_value = model::METRICS_RETENTION, value_parser = settings::duration)]
    pub metrics_retention: Duration,
    /// How long logs are kept; older lines are evaluated as if they were no older
    #[arg(long, env = "SIGHTLINE_LOG_RETENTION", default_value = model::LOG_RETENTION, value_parser = settings::duration)]
    pub log_retention: Duration,
    /// What was received so long after its own time updates alerts and tells nobody; a rule's `late_after` goes first
    #[arg(long, env = "SIGHTLINE_RULE_LATENESS", default_value = "15m", value_parser = settings::duration)]
    pub lateness: Duration,
    /// A series or resource that has said nothing for that long is forgotten, and what fires there resolves
    #[arg(long, env = "SIGHTLINE_RULE_IDLE", default_value = "1h", value_parser = settings::duration)]
    pub idle: Duration,
    /// So long after it was changed what a rule is about, whatever that is was seen; longer than anything needs to report
    /// again. Until then its `bound` is not complete
    #[arg(long, env = "SIGHTLINE_RULE_SETTLE", default_value = "2m", value_parser = settings::duration)]
    pub settle: Duration,
    /// How often each shard says everything that fires in it
    #[arg(long, env = "SIGHTLINE_DIGEST_INTERVAL", default_value = "60s", value_parser = settings::duration)]
    pub digest_interval: Duration,
    /// Memory for what rules think, of all shards together; each signal of each shard has an equal part of it
    #[arg(long, env = "SIGHTLINE_RULE_STATE_BYTES", default_value = "1GiB", value_parser = settings::bytes)]
    pub state_bytes: u64,
    /// How much of that one tenant may take, divided as it is
    #[arg(long, env = "SIGHTLINE_RULE_TENANT_STATE_BYTES", default_value = "256MiB", value_parser = settings::bytes)]
    pub tenant_state_bytes: u64,
    /// Work that one tenant's telemetry may cost a signal of a shard in a second, in looks of a rule at a series or a line
    #[arg(long, env = "SIGHTLINE_RULE_TENANT_WORK", default_value_t = 2_000_000)]
    pub tenant_work: u64,
    /// Decisions that one tenant's telemetry may make a signal of a shard say in a second; those of rules with long annotations
    /// count more, and thousands of samples that decide nothing as one. What is over is looked at with its next sample or line
    #[arg(long, env = "SIGHTLINE_RULE_TENANT_DECISIONS", default_value_t = 10_000)]
    pub tenant_decisions: u64,
    /// Memory for the labels of series that are reported, of all shards together; an eighth of what the process may use,
    /// 32MiB to 512MiB, when it is not set
    #[arg(long, env = "SIGHTLINE_SERIES_CACHE", value_parser = settings::bytes)]
    pub series_cache: Option<u64>,
    /// Most rules of one tenant
    #[arg(long, env = "SIGHTLINE_RULES_PER_TENANT", default_value_t = 2_000)]
    pub per_tenant: u32,
    /// A replica that finishes no message of a shard for that long gives the shard to another
    #[arg(long, env = "SIGHTLINE_RULE_PROGRESS_WITHIN", default_value = "20s", value_parser = settings::duration)]
    pub progress_within: Duration,
}

/// Of what the process may use, and its bounds.
const SERIES_CACHE_SHARE: u64 = 8;
const SERIES_CACHE_BOUNDS: (u64, u64) = (32 << 20, 512 << 20);

/// What a lane keeps at the most.
const MOST_OF_A_LANE: usize = 2 << 30;

impl Rules {
    /// What the lanes of a signal go by, where there are so many shards.
    #[must_use]
    pub fn limits(&self, signal: Signal, shards: u16) -> Limits {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        // Not by what this replica owns at the moment: whoever owns a lane has the same room for it, or would decide otherwise.
        let shards = u64::from(shards.max(1));
        let lanes = shards * Signal::ALL.len() as u64;
        let age = match signal {
            Signal::Metrics => self.metrics_retention,
            Signal::Logs => self.log_retention,
        };
        Limits {
            times: Times { ahead: self.clock_skew, age },
            lateness: self.lateness,
            idle: self.idle,
            state_bytes: size(self.state_bytes / lanes),
            tenant_state_bytes: size(self.tenant_state_bytes / lanes),
            tenant_work: self.tenant_work,
            tenant_decisions: self.tenant_decisions,
            series_cache_bytes: size(self.series_cache_bytes() / shards),
        }
    }

    fn series_cache_bytes(&self) -> u64 {
        let (least, most) = SERIES_CACHE_BOUNDS;
        self.series_cache.unwrap_or_else(|| (settings::memory() / SERIES_CACHE_SHARE).clamp(least, most))
    }

    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut demand = |holds: bool, sentence: &str| {
            if !holds {
                wrong.push(sentence.to_owned());
            }
        };
        demand(self.progress_within >= Duration::from_secs(5), "SIGHTLINE_RULE_PROGRESS_WITHIN must be 5s or more");
        demand(self.digest_interval >= Duration::from_millis(500), "SIGHTLINE_DIGEST_INTERVAL must be 500ms or more");
        demand(self.idle >= Duration::from_secs(60), "SIGHTLINE_RULE_IDLE must be 1m or more");
        demand(self.tenant_work >= 10_000, "SIGHTLINE_RULE_TENANT_WORK must be 10000 or more");
        demand(self.tenant_decisions >= 100, "SIGHTLINE_RULE_TENANT_DECISIONS must be 100 or more");
        demand(self.per_tenant > 0, "SIGHTLINE_RULES_PER_TENANT must be 1 or more");
        demand(
            self.tenant_state_bytes <= self.state_bytes,
            "SIGHTLINE_RULE_TENANT_STATE_BYTES may not be more than SIGHTLINE_RULE_STATE_BYTES",
        );
        wrong
    }
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = self.rules.check();
        // A part of a snapshot is a sixty-fourth of a lane's state, and none may be larger than can be read again.
        if self.rules.limits(Signal::Metrics, self.bus.shards).state_bytes > MOST_OF_A_LANE {
            wrong.push("SIGHTLINE_RULE_STATE_BYTES may be 4GiB at most for each of SIGHTLINE_SHARDS".to_owned());
        }
        // One connection listens for changed rules; leases must not queue behind snapshots for the only other one.
        if self.store.database_connections < 4 {
            wrong.push("SIGHTLINE_DATABASE_CONNECTIONS must be 4 or more".to_owned());
        }
        wrong
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "rule-engine";
    const ADMIN_PORT: u16 = 9405;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<Config, String> {
        let needed = [
            ("SIGHTLINE_AUTH_URL", "https://auth:9508"),
            ("SIGHTLINE_DATABASE_URL", "postgres://rules@localhost/sightline"),
            ("SIGHTLINE_TLS_CA_FILE", "ca"),
            ("SIGHTLINE_TLS_CERT_FILE", "cert"),
            ("SIGHTLINE_TLS_KEY_FILE", "key"),
        ];
        let all = needed.iter().chain(more);
        // As flags, since clap reads the environment of this process alone.
        let flag = |name: &str| format!("--{}", name.trim_start_matches("SIGHTLINE_").to_lowercase().replace('_', "-"));
        let arguments = all.flat_map(|(name, value)| [flag(name).into(), OsString::from(value)]);
        let arguments = std::iter::once(OsString::from("rule-engine")).chain(arguments).collect();
        let asked = settings::read::<Config>(arguments, &BTreeMap::new()).map_err(|error| error.to_string())?;
        asked.settings().ok_or_else(|| "something else was asked".to_owned())
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let rules = read(&[]).unwrap().rules;
        assert_eq!((rules.lateness, rules.digest_interval), (Duration::from_secs(900), Duration::from_secs(60)));
        let limits = rules.limits(Signal::Logs, 4);
        assert_eq!((limits.state_bytes, limits.tenant_state_bytes), (128 << 20, 32 << 20), "an eighth for each lane");
        assert!((8 << 20..=128 << 20).contains(&limits.series_cache_bytes));
        assert_eq!((rules.per_tenant, rules.clock_skew), (2_000, Duration::from_secs(600)));
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_name_of_the_setting() {
        for (flag, value, name) in [
            ("PROGRESS_WITHIN", "1s", "SIGHTLINE_RULE_PROGRESS_WITHIN"),
            ("DIGEST_INTERVAL", "1ms", "SIGHTLINE_DIGEST_INTERVAL"),
            ("STATE_BYTES", "1MiB", "SIGHTLINE_RULE_TENANT_STATE_BYTES"),
            ("STATE_BYTES", "9GiB", "SIGHTLINE_RULE_STATE_BYTES"),
            ("TENANT_WORK", "1", "SIGHTLINE_RULE_TENANT_WORK"),
            ("TENANT_DECISIONS", "1", "SIGHTLINE_RULE_TENANT_DECISIONS"),
            ("PER_TENANT", "0", "SIGHTLINE_RULES_PER_TENANT"),
            ("DATABASE_CONNECTIONS", "2", "SIGHTLINE_DATABASE_CONNECTIONS"),
        ] {
            let refused = read(&[(flag, value)]).expect_err("a refusal");
            assert!(refused.contains(name), "{refused}");
        }
    }
}
