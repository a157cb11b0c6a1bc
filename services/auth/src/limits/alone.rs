//! Buckets of one replica, while Redis is away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use super::{Bucket, Rate, Refused};

/// As many buckets as an attacker can make us keep, a few dozen bytes each.
const BUCKETS: u64 = 100_000;
/// A bucket is full again long before.
const IDLE: Duration = Duration::from_secs(15 * 60);

pub(super) struct Buckets(Cache<String, Arc<Mutex<Level>>>);

struct Level {
    tokens: f64,
    filled_at: Instant,
    refused: bool,
}

impl Default for Buckets {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(BUCKETS).time_to_idle(IDLE).build())
    }
}

impl Buckets {
    pub(super) fn take(&self, buckets: &[Bucket], now: Instant) -> Result<(), Refused> {
        for (index, bucket) in buckets.iter().enumerate() {
            let full = || Level { tokens: f64::from(bucket.rate.burst), filled_at: now, refused: false };
            let level = self.0.get_with(bucket.name.clone(), || Arc::new(Mutex::new(full())));
            if let Err(refused) = take(&level, bucket.rate, now) {
                self.give_back(&buckets[..index]);
                return Err(refused);
            }
        }
        Ok(())
    }

    pub(super) fn give_back(&self, buckets: &[Bucket]) {
        for bucket in buckets {
            if let Some(level) = self.0.get(&bucket.name) {
                let mut level = level.lock().unwrap_or_else(PoisonError::into_inner);
                level.tokens = (level.tokens + 1.0).min(f64::from(bucket.rate.burst));
            }
        }
    }
}

fn take(level: &Mutex<Level>, rate: Rate, now: Instant) -> Result<(), Refused> {
    let mut level = level.lock().unwrap_or_else(PoisonError::into_inner);
    let gained = now.saturating_duration_since(level.filled_at).as_secs_f64() / rate.every.as_secs_f64();
    level.tokens = (level.tokens + gained).min(f64::from(rate.burst));
    level.filled_at = level.filled_at.max(now);
    if level.tokens >= 1.0 {
        level.tokens -= 1.0;
        level.refused = false;
        return Ok(());
    }
    let first = !std::mem::replace(&mut level.refused, true);
    Err(Refused { retry_after: rate.every.mul_f64(1.0 - level.tokens), first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(username: &str, source: &str) -> Vec<Bucket> {
        vec![Bucket::account("default", username, source), Bucket::source("default", source)]
    }

    #[test]
    fn five_failures_then_one_every_twelve_seconds() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let ann = login("ann", "10.0.0.1");
        assert!((0..5).all(|_| buckets.take(&ann, now).is_ok()));
        let refused = buckets.take(&login("Ann", "10.0.0.1"), now).unwrap_err();
        assert_eq!(refused, Refused { retry_after: Duration::from_secs(12), first: true });
        assert!(!buckets.take(&ann, now).unwrap_err().first);
        buckets.take(&ann, now + Duration::from_secs(12)).unwrap();
        buckets.take(&ann, now + Duration::from_secs(13)).unwrap_err();
        buckets.take(&login("ann", "10.0.0.2"), now).unwrap();
    }

    #[test]
    fn a_source_that_tries_many_names_is_limited_for_its_tenant() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let allowed = (0..100).filter(|i| buckets.take(&login(&format!("user{i}"), "10.0.0.1"), now).is_ok()).count();
        assert_eq!(allowed, 30);
        buckets.take(&[Bucket::source("other", "10.0.0.1")], now).unwrap();
    }

    #[test]
    fn good_logins_cost_nothing() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let ann = login("ann", "10.0.0.1");
        for _ in 0..100 {
            buckets.take(&ann, now).unwrap();
            buckets.give_back(&ann);
        }
    }

    #[test]
    fn what_one_bucket_refuses_the_others_do_not_pay_for() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let ann = [Bucket::source("default", "10.0.0.1"), Bucket::account("default", "ann", "10.0.0.1")];
        while buckets.take(&ann, now).is_ok() {}
        let left = (0..100).filter(|_| buckets.take(&ann[..1], now).is_ok()).count();
        assert_eq!(left, 25);
    }
}
