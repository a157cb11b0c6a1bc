//! How often a login may fail: token buckets for each account and source together, and for each source.
//!
//! Never for an account alone: whoever knows a name could then keep its owner out. What that leaves to an attacker with
//! many addresses is bounded by the price of a hash and by the number of hashes at a time.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

/// As many buckets as an attacker can make us keep, a few dozen bytes each.
const BUCKETS: u64 = 100_000;
/// A bucket is full again long before.
const IDLE: Duration = Duration::from_secs(15 * 60);

const ACCOUNT: Rate = Rate { burst: 5, every: Duration::from_secs(12) };
const SOURCE: Rate = Rate { burst: 30, every: Duration::from_secs(2) };

#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// The limits of one replica.
pub struct Limits {
    accounts: Cache<(String, String, String), Arc<Mutex<Bucket>>>,
    sources: Cache<String, Arc<Mutex<Bucket>>>,
}

/// What was taken for one attempt. A login that succeeds gives it back.
pub struct Taken {
    buckets: [Arc<Mutex<Bucket>>; 2],
}

/// An attempt that comes too soon.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// When the next one may come.
    pub retry_after: Duration,
    /// The first refusal since an attempt was allowed: worth a record, where those that follow are only counted.
    pub first: bool,
}

struct Bucket {
    tokens: f64,
    filled_at: Instant,
    refused: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            accounts: Cache::builder().max_capacity(BUCKETS).time_to_idle(IDLE).build(),
            sources: Cache::builder().max_capacity(BUCKETS).time_to_idle(IDLE).build(),
        }
    }
}

impl Limits {
    /// Takes from the buckets of this attempt.
    ///
    /// # Errors
    /// When the next attempt may come.
    pub fn take(&self, tenant: &str, username: &str, source: &str, now: Instant) -> Result<Taken, Refused> {
        let source = network(source);
        let full =
            |rate: Rate| Arc::new(Mutex::new(Bucket { tokens: f64::from(rate.burst), filled_at: now, refused: false }));
        let account = (tenant.to_owned(), username.to_lowercase(), source.clone());
        let account = self.accounts.get_with(account, || full(ACCOUNT));
        let source = self.sources.get_with(source, || full(SOURCE));
        take(&source, SOURCE, now)?;
        if let Err(refused) = take(&account, ACCOUNT, now) {
            give_back(&source, SOURCE);
            return Err(refused);
        }
        Ok(Taken { buckets: [account, source] })
    }
}

impl Taken {
    /// The attempt was a good one.
    pub fn give_back(self) {
        let [account, source] = self.buckets;
        give_back(&account, ACCOUNT);
        give_back(&source, SOURCE);
    }
}

fn take(bucket: &Mutex<Bucket>, rate: Rate, now: Instant) -> Result<(), Refused> {
    let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
    let gained = now.saturating_duration_since(bucket.filled_at).as_secs_f64() / rate.every.as_secs_f64();
    bucket.tokens = (bucket.tokens + gained).min(f64::from(rate.burst));
    bucket.filled_at = bucket.filled_at.max(now);
    if bucket.tokens >= 1.0 {
        bucket.tokens -= 1.0;
        bucket.refused = false;
        return Ok(());
    }
    let first = !std::mem::replace(&mut bucket.refused, true);
    Err(Refused { retry_after: rate.every.mul_f64(1.0 - bucket.tokens), first })
}

fn give_back(bucket: &Mutex<Bucket>, rate: Rate) {
    let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
    bucket.tokens = (bucket.tokens + 1.0).min(f64::from(rate.burst));
}

/// Whoever has one IPv6 address has a /64 of them.
fn network(source: &str) -> String {
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
    use super::*;

    fn fail(limits: &Limits, username: &str, source: &str, now: Instant) -> bool {
        limits.take("default", username, source, now).is_ok()
    }

    #[test]
    fn five_failures_then_one_every_twelve_seconds() {
        let (limits, now) = (Limits::default(), Instant::now());
        assert!((0..5).all(|_| fail(&limits, "ann", "10.0.0.1", now)));
        let refused = limits.take("default", "Ann", "10.0.0.1", now).err().unwrap();
        assert_eq!(refused, Refused { retry_after: Duration::from_secs(12), first: true });
        assert!(!limits.take("default", "ann", "10.0.0.1", now).err().unwrap().first);
        assert!(fail(&limits, "ann", "10.0.0.1", now + Duration::from_secs(12)));
        assert!(!fail(&limits, "ann", "10.0.0.1", now + Duration::from_secs(13)));
    }

    #[test]
    fn an_attacker_does_not_lock_the_owner_out() {
        let (limits, now) = (Limits::default(), Instant::now());
        while fail(&limits, "ann", "10.0.0.1", now) {}
        assert!(fail(&limits, "ann", "10.0.0.2", now));
    }

    #[test]
    fn a_source_that_tries_many_names_is_limited() {
        let (limits, now) = (Limits::default(), Instant::now());
        let allowed = (0..100).filter(|i| fail(&limits, &format!("user{i}"), "2001:db8::1", now)).count();
        assert_eq!(allowed, 30);
        assert!(!fail(&limits, "somebody", "2001:db8::2", now), "the same /64");
        assert!(fail(&limits, "somebody", "2001:db8:0:1::2", now));
    }

    #[test]
    fn good_logins_cost_nothing() {
        let (limits, now) = (Limits::default(), Instant::now());
        for _ in 0..100 {
            limits.take("default", "ann", "10.0.0.1", now).ok().unwrap().give_back();
        }
        assert!(fail(&limits, "ann", "10.0.0.1", now));
    }
}
