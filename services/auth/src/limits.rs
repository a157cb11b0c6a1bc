//! How often something may fail: token buckets that only failures empty, in Redis for all replicas together.
//!
//! A login is limited for its account and source together, and for its source. Never for an account alone: whoever knows a
//! name could then keep its owner out. Nor can whoever shares the owner's source: a user who has logged in from there before
//! is not held by what others do there, and a device that has logged in before has a bucket of its own. What that leaves to
//! an attacker with many addresses is bounded by the price of a hash and by the number of hashes at a time.
//!
//! While Redis is away each replica counts alone: nobody is let through uncounted, nobody is turned away for it.

mod alone;
mod shared;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use settings::Secret;

use crate::metrics::Metrics;

/// How fast a bucket fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub burst: u32,
    pub every: Duration,
}

const ACCOUNT: Rate = Rate { burst: 5, every: Duration::from_secs(12) };
const SOURCE: Rate = Rate { burst: 30, every: Duration::from_secs(2) };
/// Refresh tokens cannot be guessed; whoever tries is told to come back later.
const REFRESH: Rate = Rate { burst: 60, every: Duration::from_secs(1) };

/// What is counted under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    name: String,
    rate: Rate,
}

impl Bucket {
    /// Of an account as seen from a source.
    #[must_use]
    pub fn account(tenant: &str, username: &str, source: &str) -> Self {
        Self { name: format!("account\0{tenant}\0{}\0{source}", username.to_lowercase()), rate: ACCOUNT }
    }

    /// Of an account on a device that logged in before.
    #[must_use]
    pub fn device(mark: &str) -> Self {
        Self { name: format!("device\0{mark}"), rate: ACCOUNT }
    }

    /// Of everything that comes from a source for one tenant.
    #[must_use]
    pub fn source(tenant: &str, source: &str) -> Self {
        Self { name: format!("source\0{tenant}\0{source}"), rate: SOURCE }
    }

    /// Of refresh tokens that come from a source.
    #[must_use]
    pub fn refresh(source: &str) -> Self {
        Self { name: format!("refresh\0{source}"), rate: REFRESH }
    }
}

/// An attempt that comes too soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// When the next one may come.
    pub retry_after: Duration,
    /// The first refusal since an attempt was allowed: worth a record, where those that follow are only counted.
    pub first: bool,
}

/// The limits of all replicas.
pub struct Limits {
    shared: shared::Buckets,
    alone: alone::Buckets,
    away: AtomicBool,
    metrics: Metrics,
}

impl Limits {
    /// Counts in the Redis at `url`, under `namespace`; connects when it must.
    ///
    /// # Errors
    /// A URL that cannot be read.
    pub fn new(url: &Secret, namespace: &str, metrics: Metrics) -> anyhow::Result<Self> {
        let shared = shared::Buckets::new(url, namespace)?;
        Ok(Self { shared, alone: alone::Buckets::default(), away: AtomicBool::new(false), metrics })
    }

    /// Takes from every one of `buckets`, or from none.
    ///
    /// # Errors
    /// When the next attempt may come.
    pub async fn take(&self, buckets: &[Bucket]) -> Result<(), Refused> {
        match self.shared.take(buckets).await {
            Ok(verdict) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("limits are shared through Redis again");
                }
                verdict
            }
            Err(error) => {
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "Redis is away: this replica counts failed logins alone"
                    );
                }
                self.metrics.limits_alone.inc();
                self.alone.take(buckets, Instant::now())
            }
        }
    }

    /// The attempt was a good one: it costs nothing.
    pub async fn give_back(&self, buckets: &[Bucket]) {
        if self.away.load(Ordering::Relaxed) {
            self.alone.give_back(buckets);
        } else if let Err(error) = self.shared.give_back(buckets).await {
            tracing::debug!(error = format!("{error:#}"), "cannot give a login attempt back");
        }
    }
}

/// Whoever has one IPv6 address has a /64 of them.
#[must_use]
pub fn network(source: &str) -> String {
    match source.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Ok(address) => address.to_string(),
        Err(_) => source.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::network;

    #[test]
    fn a_source_is_an_address_or_a_network_of_one() {
        assert_eq!(network("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(network("2001:db8::1"), network("2001:db8::2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::2"));
    }
}
