//! Heartbeats in Redis: `<namespace>:heartbeats:<tenant>`, a sorted set of resource ids by when they were last seen.
//!
//! Gateways write, the registry reads and clears away what is long dead. `docs/contracts/redis.md` has the keys.

use std::time::Duration;

use anyhow::Context as _;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use settings::Secret;
use uuid::Uuid;

use crate::presence::{Nanos, nanos};

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Far beyond any threshold; the registry's own record knows when it was last seen.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Signs of life of one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub beats: Vec<Heartbeat>,
    /// Redis had lost our mark: whatever else it held is gone too.
    pub forgotten: bool,
}

/// When a resource was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub tenant: String,
    pub id: String,
    pub seen: Nanos,
}

/// Reads heartbeats; connects when it must.
pub struct Heartbeats {
    client: redis::Client,
    connection: Option<MultiplexedConnection>,
    namespace: String,
}

impl Heartbeats {
    /// Does not connect yet.
    ///
    /// # Errors
    /// A URL that cannot be read.
    pub fn new(url: &Secret, namespace: &str) -> anyhow::Result<Self> {
        // The library's error would show the URL, and with it the password.
        let client = redis::Client::open(url.reveal())
            .map_err(|_| anyhow::anyhow!("the Redis URL cannot be read; write redis://host:port"))?;
        Ok(Self { client, connection: None, namespace: namespace.to_owned() })
    }

    /// Redis's clock: the only one that heartbeats are compared with.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn now(&mut self) -> anyhow::Result<Nanos> {
        let mut pipe = redis::pipe();
        pipe.cmd("TIME");
        let ((seconds, micros),): ((u64, u64),) = self.ask(&pipe, "ask Redis for the time").await?;
        Ok(nanos(Duration::from_secs(seconds) + Duration::from_micros(micros)))
    }

    /// The heartbeats of `tenants` that are not older than `since`, and whether `mark` was still there. Sets it if not.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn read(&mut self, tenants: &[String], since: Nanos, mark: Uuid) -> anyhow::Result<Snapshot> {
        let since = (since / 1_000_000).max(0);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("SET").arg(self.mark_key()).arg(mark.to_string()).arg("GET");
        for tenant in tenants {
            pipe.cmd("ZRANGEBYSCORE").arg(self.key(tenant)).arg(since).arg("+inf").arg("WITHSCORES");
        }
        let mut answers: Vec<redis::Value> = self.ask(&pipe, "read heartbeats").await?;
        let sets = answers.split_off(1.min(answers.len()));
        let marked: Option<String> = match answers.pop() {
            Some(answer) => redis::from_redis_value(answer).context("read the mark")?,
            None => None,
        };
        let mut snapshot = Snapshot { beats: Vec::new(), forgotten: marked != Some(mark.to_string()) };
        for (tenant, set) in tenants.iter().zip(sets) {
            let members: Vec<(String, String)> = redis::from_redis_value(set).context("read heartbeats")?;
            let beat = |(id, score): (String, String)| {
                Some(Heartbeat { tenant: tenant.clone(), id, seen: from_millis(&score)? })
            };
            snapshot.beats.extend(members.into_iter().filter_map(beat));
        }
        Ok(snapshot)
    }

    /// Clears away what nobody has seen for a day.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn forget_old(&mut self, tenants: &[String], now: Nanos) -> anyhow::Result<()> {
        if tenants.is_empty() {
            return Ok(());
        }
        let before = now.saturating_sub(nanos(FORGET_AFTER)) / 1_000_000;
        let mut pipe = redis::pipe();
        for tenant in tenants {
            pipe.cmd("ZREMRANGEBYSCORE").arg(self.key(tenant)).arg("-inf").arg(format!("({before}")).ignore();
        }
        self.ask(&pipe, "forget old heartbeats").await
    }

    fn key(&self, tenant: &str) -> String {
        format!("{}:heartbeats:{tenant}", self.namespace)
    }

    fn mark_key(&self) -> String {
        format!("{}:registry:sweeper", self.namespace)
    }

    /// After an error the next question goes over a new connection.
    async fn ask<T: redis::FromRedisValue>(&mut self, pipe: &redis::Pipeline, what: &'static str) -> anyhow::Result<T> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN, pipe.query_async(&mut connection)).await;
        let answer = answer.context(what)?.context(what)?;
        self.connection = Some(connection);
        Ok(answer)
    }

    async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN));
        let connected = self.client.get_multiplexed_async_connection_with_config(&config);
        tokio::time::timeout(ANSWER_WITHIN, connected).await.context("connect to Redis")?.context("connect to Redis")
    }
}

/// Redis writes a score without an exponent up to 17 digits; through a float it would not come back to the millisecond.
fn from_millis(score: &str) -> Option<Nanos> {
    let whole = score.split_once('.').map_or(score, |(whole, _)| whole);
    whole.parse().ok().map(|millis| nanos(Duration::from_millis(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_read_is_refused_without_showing_it() {
        let url = Secret::from("http://user:hunter2@nowhere".to_owned());
        let error = Heartbeats::new(&url, "sl").err().unwrap();
        assert!(!format!("{error:#}").contains("hunter2"));
    }

    #[test]
    fn a_score_is_unix_milliseconds() {
        assert_eq!(from_millis("1700000000123"), Some(1_700_000_000_123_000_000));
        assert_eq!(from_millis("1700000000123.5"), Some(1_700_000_000_123_000_000));
        assert_eq!([from_millis("-1"), from_millis("inf"), from_millis("")], [None; 3]);
    }
}
