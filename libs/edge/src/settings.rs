//! What a listener can be told.

use std::time::Duration;

use ipnet::IpNet;

use crate::proxies::{ForwardedHeader, Proxies};

/// The limits of public ports.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Settings {
    /// Connections to each public port; more are closed at once
    #[arg(long, env = "SIGHTLINE_CONNECTIONS", default_value_t = 8_192)]
    pub connections: usize,
    /// The same from one address (of IPv6, one /64), so that others find room; trusted proxies have no such limit
    #[arg(long, env = "SIGHTLINE_CONNECTIONS_PER_CLIENT", default_value_t = 4_096)]
    pub connections_per_client: usize,
    /// How long a connection lives before its client is asked to make another, which spreads clients over replicas; it
    /// varies by a tenth, so that they do not all come at once
    #[arg(long, env = "SIGHTLINE_CONNECTION_MAX_AGE", default_value = "30m", value_parser = ::settings::duration)]
    pub connection_max_age: Duration,
    /// How long a client may take to send the headers of a request
    #[arg(long, env = "SIGHTLINE_HEADERS_WITHIN", default_value = "10s", value_parser = ::settings::duration)]
    pub headers_within: Duration,
    /// How long the body of a request may pause before the request is given up; those of gRPC calls may pause
    #[arg(long, env = "SIGHTLINE_BODY_PAUSE", default_value = "30s", value_parser = ::settings::duration)]
    pub body_pause: Duration,
    /// How long a client may read nothing of an answer, or of a WebSocket, before its connection is ended
    #[arg(long, env = "SIGHTLINE_ANSWER_PAUSE", default_value = "30s", value_parser = ::settings::duration)]
    pub answer_pause: Duration,
    /// Bytes of a refused body that are read and dropped after the answer, so that its client learns the answer
    #[arg(long, env = "SIGHTLINE_LINGER_BYTES", default_value = "64MiB", value_parser = ::settings::bytes)]
    pub linger_bytes: u64,
    /// Networks, comma separated, of proxies whose word about their clients' addresses is believed, for example 10.0.0.0/8
    #[arg(long, env = "SIGHTLINE_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they say it
    #[arg(long, env = "SIGHTLINE_FORWARDED_HEADER", default_value = "x-forwarded-for")]
    pub forwarded_header: ForwardedHeader,
    /// How often certificate files are looked at
    #[arg(long, env = "SIGHTLINE_CERTIFICATE_CHECK", default_value = "10s", value_parser = ::settings::duration)]
    pub certificate_check: Duration,
}

impl Settings {
    /// Proxies that are believed.
    #[must_use]
    pub fn proxies(&self) -> Proxies {
        Proxies::new(&self.trusted_proxies, self.forwarded_header)
    }

    /// What is wrong with them, for a configuration's own check.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.connections == 0 || self.connections_per_client == 0 {
            wrong.push("SIGHTLINE_CONNECTIONS and SIGHTLINE_CONNECTIONS_PER_CLIENT must be at least 1".to_owned());
        }
        for (name, time) in [
            ("SIGHTLINE_CONNECTION_MAX_AGE", self.connection_max_age),
            ("SIGHTLINE_HEADERS_WITHIN", self.headers_within),
            ("SIGHTLINE_BODY_PAUSE", self.body_pause),
            ("SIGHTLINE_ANSWER_PAUSE", self.answer_pause),
        ] {
            if time < Duration::from_secs(1) {
                wrong.push(format!("{name} must be at least 1s"));
            }
        }
        if self.certificate_check.is_zero() {
            wrong.push("SIGHTLINE_CERTIFICATE_CHECK must not be 0".to_owned());
        }
        wrong
    }
}
