//! Signs of life in Redis: when each resource was last seen, and when a gateway was last there to see.
//!
//! Gateways write, the registry reads and clears away what is long dead. `docs/contracts/redis.md` has the keys.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use settings::Secret;
use uuid::Uuid;

use crate::presence::{Nanos, nanos};
use crate::roster::Key;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Far beyond any threshold; the registry's own record knows when it was last seen.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Ids asked for in one command.
const AT_ONCE: usize = 1_000;

/// Signs of life since some time.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub beats: Vec<(Key, Nanos)>,
    /// When a gateway was last there; none where none ever said so.
    pub gateway: Option<Nanos>,
    /// The mark that was there before ours, if any: without one, Redis has lost its memory, or never had any.
    pub mark: Option<String>,
}

/// Reads signs of life; connects when it must. Clones share the connection.
#[derive(Clone)]
pub struct Heartbeats {
    client: redis::Client,
    connection: Arc<Mutex<Option<MultiplexedConnection>>>,
    namespace: Arc<str>,
    within: Duration,
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
        Ok(Self { client, connection: Arc::default(), namespace: namespace.into(), within: ANSWER_WITHIN })
    }

    /// The same over a connection of its own, which is given up after `within`.
    #[must_use]
    pub fn within(&self, within: Duration) -> Self {
        Self { connection: Arc::default(), within, ..self.clone() }
    }

    /// Redis's clock: the only one that heartbeats are compared with.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn now(&self) -> anyhow::Result<Nanos> {
        let mut pipe = redis::pipe();
        pipe.cmd("TIME");
        let ((seconds, micros),): ((u64, u64),) = self.ask(&pipe, "ask Redis for the time").await?;
        Ok(nanos(Duration::from_secs(seconds) + Duration::from_micros(micros)))
    }

    /// The signs of life of `tenants` that are not older than `since`. Puts `mark` there.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn read(&self, tenants: &[Arc<str>], since: Nanos, mark: Uuid) -> anyhow::Result<Snapshot> {
        let since = millis(since);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("SET").arg(self.mark_key()).arg(mark.to_string()).arg("GET");
        pipe.cmd("ZRANGE").arg(self.gateways_key()).arg(-1).arg(-1).arg("WITHSCORES");
        for tenant in tenants {
            pipe.cmd("ZRANGEBYSCORE").arg(self.key(tenant)).arg(since).arg("+inf").arg("WITHSCORES");
        }
        let mut answers: Vec<redis::Value> = self.ask(&pipe, "read heartbeats").await?;
        let sets = answers.split_off(2.min(answers.len()));
        let mut answers = answers.into_iter();
        let mark =
            answers.next().map(redis::from_redis_value::<Option<String>>).transpose().context("read the mark")?;
        let gateways = answers.next().map(redis::from_redis_value::<Vec<(String, String)>>).transpose();
        let gateways = gateways.context("read when a gateway was there")?.unwrap_or_default();
        let gateway = gateways.first().and_then(|(_, score)| from_millis(score));
        let mut beats = Vec::new();
        for (tenant, set) in tenants.iter().zip(sets) {
            let members: Vec<(String, String)> = redis::from_redis_value(set).context("read heartbeats")?;
            let beat = |(id, score): (String, String)| {
                Some((Key { tenant: Arc::clone(tenant), id: id.into() }, from_millis(&score)?))
            };
            beats.extend(members.into_iter().filter_map(beat));
        }
        Ok(Snapshot { beats, gateway, mark: mark.flatten() })
    }

    /// The last signs of life of `keys`, where Redis has them.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn last(&self, keys: &[Key]) -> anyhow::Result<Vec<Option<Nanos>>> {
        let mut last = Vec::with_capacity(keys.len());
        // Neighbours of one tenant are asked for together.
        let groups = keys.chunk_by(|a, b| a.tenant == b.tenant).flat_map(|group| group.chunks(AT_ONCE));
        for group in groups {
            let mut pipe = redis::pipe();
            let command = pipe.cmd("ZMSCORE").arg(self.key(&group[0].tenant));
            for key in group {
                command.arg(&*key.id);
            }
            let (scores,): (Vec<Option<String>>,) = self.ask(&pipe, "read last heartbeats").await?;
            last.extend(scores.iter().map(|score| score.as_deref().and_then(from_millis)));
        }
        Ok(last)
    }

    /// Clears away what nobody has seen for a day.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn forget_old(&self, tenants: &[Arc<str>], now: Nanos) -> anyhow::Result<()> {
        let before = millis(now.saturating_sub(nanos(FORGET_AFTER)));
        let mut pipe = redis::pipe();
        let keys = tenants.iter().map(|tenant| self.key(tenant)).chain([self.gateways_key()]);
        for key in keys {
            pipe.cmd("ZREMRANGEBYSCORE").arg(key).arg("-inf").arg(format!("({before}")).ignore();
        }
        self.ask(&pipe, "forget old heartbeats").await
    }

    fn key(&self, tenant: &str) -> String {
        format!("{}:heartbeats:{tenant}", self.namespace)
    }

    fn gateways_key(&self) -> String {
        format!("{}:gateways", self.namespace)
    }

    fn mark_key(&self) -> String {
        format!("{}:registry:sweeper", self.namespace)
    }

    /// After an error the next question goes over a new connection.
    async fn ask<T: redis::FromRedisValue>(&self, pipe: &redis::Pipeline, what: &'static str) -> anyhow::Result<T> {
        let known = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection = match known {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answer = tokio::time::timeout(self.within, pipe.query_async(&mut connection)).await;
        let answer = answer.context(what).and_then(|answer| answer.context(what));
        let kept = answer.is_ok().then_some(connection);
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        answer
    }

    async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.within))
            .set_response_timeout(Some(self.within));
        let connected = self.client.get_multiplexed_async_connection_with_config(&config);
        tokio::time::timeout(self.within, connected).await.context("connect to Redis")?.context("connect to Redis")
    }
}

fn millis(time: Nanos) -> Nanos {
    (time / 1_000_000).max(0)
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
