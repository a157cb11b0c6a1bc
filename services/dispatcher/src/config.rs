//! What the dispatcher can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::delivery::Backoff;
use crate::share::Limits;
use crate::store::overdue::Patience;

/// The whole configuration.
#[derive(clap::Parser, Debug, Clone)]
#[command(name = "dispatcher", version, about = "Carries notifications to receivers")]
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
    pub dispatch: Settings,
    /// Address of auth, as https://host:port
    #[arg(long, env = "SIGHTLINE_AUTH_URL")]
    pub auth_url: String,
}

/// What is the dispatcher's own.
#[derive(clap::Args, Debug, Clone)]
pub struct Settings {
    /// Address of the gRPC API
    #[arg(long, env = "SIGHTLINE_GRPC_LISTEN", default_value = "0.0.0.0:9507")]
    pub grpc_listen: SocketAddr,
    /// Networks that are not public and that webhooks may be sent to all the same, for example `10.0.0.0/8,fd00::/8`;
    /// without it loopback, private, link-local and reserved addresses are refused
    #[arg(long, env = "SIGHTLINE_WEBHOOK_ALLOWED_NETWORKS", default_value = "")]
    pub webhook_allowed_networks: Networks,
    /// How long a receiver may take for its answer
    #[arg(long, env = "SIGHTLINE_WEBHOOK_TIMEOUT", default_value = "10s", value_parser = settings::duration)]
    pub webhook_timeout: Duration,
    /// Wait after a delivery's first failure; each further failure doubles it
    #[arg(long, env = "SIGHTLINE_WEBHOOK_RETRY_FIRST", default_value = "1s", value_parser = settings::duration)]
    pub webhook_retry_first: Duration,
    /// The longest wait between two attempts
    #[arg(long, env = "SIGHTLINE_WEBHOOK_RETRY_MOST", default_value = "5m", value_parser = settings::duration)]
    pub webhook_retry_most: Duration,
    /// Age at which a delivery that never succeeded is given up
    #[arg(long, env = "SIGHTLINE_WEBHOOK_RETRY_FOR", default_value = "12h", value_parser = settings::duration)]
    pub webhook_retry_for: Duration,
    /// Age at which a delivery is given up that its receiver refuses (4xx), or that may not be sent there: it may be
    /// deployed or given another secret just now
    #[arg(long, env = "SIGHTLINE_WEBHOOK_REFUSED_FOR", default_value = "1h", value_parser = settings::duration)]
    pub webhook_refused_for: Duration,
    /// How long a delivery waits for a receiver of its name that does not exist yet
    #[arg(long, env = "SIGHTLINE_RECEIVER_WAIT", default_value = "1h", value_parser = settings::duration)]
    pub receiver_wait: Duration,
    /// How long a notification waits for the one before it of its group, which a killed dispatcher may have held, while that
    /// can come; half of it must be longer than the 5s after which the broker brings such a one again
    #[arg(long, env = "SIGHTLINE_NOTIFICATION_PREDECESSOR_WAIT", default_value = "15s", value_parser = settings::duration)]
    pub predecessor_wait: Duration,
    /// Deliveries at the same time, in each dispatcher; a tenant, and receivers that do not answer, get half at the most
    #[arg(long, env = "SIGHTLINE_WEBHOOK_ATTEMPTS", default_value = "1024", value_parser = clap::value_parser!(u16).range(2..=16384))]
    pub webhook_attempts: u16,
    /// Deliveries to one receiver at the same time, in each dispatcher; one that has not answered lately gets one
    #[arg(long, env = "SIGHTLINE_WEBHOOK_CONCURRENCY", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub webhook_concurrency: u16,
    /// Where people reach Sightline; notifications link to it
    #[arg(long, env = "SIGHTLINE_EXTERNAL_URL", default_value = "http://localhost:8080")]
    pub external_url: Url,
    /// How long deliveries that are over are kept, with every attempt
    #[arg(long, env = "SIGHTLINE_DELIVERY_RETENTION", default_value = "90d", value_parser = settings::duration)]
    pub delivery_retention: Duration,
    /// File with the key that encrypts receivers' secrets in the database, at least 32 random bytes; without it they lie
    /// there in clear
    #[arg(long, env = "SIGHTLINE_DISPATCHER_ENCRYPTION_KEY_FILE")]
    pub encryption_key_file: Option<PathBuf>,
}

/// A notification that waited longer than the retention is not delivered, so that one cannot be short.
const LEAST_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Networks, separated by commas; the empty text is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let networks = text.split(',').map(str::trim).filter(|network| !network.is_empty());
        let read = |network: &str| {
            network.parse().map_err(|_| format!("`{network}` is no network; write 10.0.0.0/8 or ::1/128"))
        };
        networks.map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl Settings {
    /// How failures are repeated.
    #[must_use]
    pub fn backoff(&self) -> Backoff {
        Backoff {
            first: self.webhook_retry_first,
            most: self.webhook_retry_most,
            give_up: self.webhook_retry_for,
            give_up_refused: self.webhook_refused_for,
        }
    }

    /// How many attempts at the same time.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { all: usize::from(self.webhook_attempts), per_receiver: usize::from(self.webhook_concurrency) }
    }

    /// When deliveries are given up that nobody tries.
    #[must_use]
    pub fn patience(&self) -> Patience {
        Patience { give_up: self.webhook_retry_for, without_receiver: self.receiver_wait.min(self.webhook_retry_for) }
    }
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let dispatch = &self.dispatch;
        if dispatch.webhook_timeout.is_zero() || dispatch.webhook_timeout >= self.process.shutdown_deadline {
            wrong.push("SIGHTLINE_WEBHOOK_TIMEOUT must be above 0 and below SIGHTLINE_SHUTDOWN_DEADLINE, or a stop cuts deliveries off".into());
        }
        if dispatch.webhook_retry_first.is_zero() || dispatch.webhook_retry_first > dispatch.webhook_retry_most {
            wrong.push("SIGHTLINE_WEBHOOK_RETRY_FIRST must be above 0 and at most SIGHTLINE_WEBHOOK_RETRY_MOST".into());
        }
        if !matches!(dispatch.external_url.scheme(), "http" | "https") {
            wrong.push("SIGHTLINE_EXTERNAL_URL must begin with http:// or https://".into());
        }
        if dispatch.delivery_retention < LEAST_RETENTION {
            wrong.push(
                "SIGHTLINE_DELIVERY_RETENTION must be at least 7d, since older notifications are not sent".into(),
            );
        }
        wrong
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "dispatcher";
    const ADMIN_PORT: u16 = 9407;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}

#[cfg(test)]
mod tests {
    use super::Networks;

    #[test]
    fn networks_are_separated_by_commas_and_may_be_none() {
        let read = |text: &str| text.parse::<Networks>();
        assert_eq!(read("").unwrap(), Networks::default());
        assert_eq!(read("127.0.0.0/8, ::1/128").unwrap().0.len(), 2);
        assert!(read("10.0.0.0/8,here").unwrap_err().contains("`here`"));
    }
}
