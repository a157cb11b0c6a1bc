//! Signs of life in Redis: which resources were seen in the last two seconds, and that this gateway is there to see. Telemetry
//! flows the same without Redis.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use lifecycle::CancellationToken;
use model::ResourceId;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use settings::Secret;
use uuid::Uuid;

use crate::metrics::{Aside, Metrics};
use crate::seen::agent_resource;

const EVERY: Duration = Duration::from_secs(2);
/// Resources that are remembered between two rounds: more is no fleet but a flood of made-up names.
const MOST: usize = 200_000;
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

type Seen = HashMap<Arc<str>, HashSet<ResourceId>>;
/// Open streams of each agent.
type Sessions = HashMap<(Arc<str>, ResourceId), usize>;

/// What was seen since the last round. Clones share it.
#[derive(Clone, Default)]
pub struct Heartbeats {
    seen: Arc<Mutex<Seen>>,
    sessions: Arc<Mutex<Sessions>>,
    /// Resources that there was no room for since the last round.
    left_out: Arc<AtomicU64>,
}

impl Heartbeats {
    /// Notes that a resource, and the agent that reports it, live.
    pub fn note(&self, tenant: &Arc<str>, resources: impl IntoIterator<Item = ResourceId>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(tenant) {
            Some(known) if known.len() >= MOST => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
            Some(known) => known.extend(resources),
            None => {
                seen.insert(Arc::clone(tenant), resources.into_iter().collect());
            }
        }
    }

    /// An agent lives as long as its stream is open.
    #[must_use]
    pub fn session(&self, tenant: &Arc<str>, agent_id: &str) -> Session {
        let key = (Arc::clone(tenant), agent_resource(tenant, agent_id));
        *self.sessions.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default() += 1;
        Session { heartbeats: self.clone(), key }
    }

    /// Takes what was seen, with the agents whose streams are open.
    fn take(&self) -> Seen {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        for (tenant, agent) in self.sessions.lock().unwrap_or_else(PoisonError::into_inner).keys() {
            seen.entry(Arc::clone(tenant)).or_default().insert(*agent);
        }
        seen
    }

    /// Writes a round every two seconds until the process stops.
    ///
    /// # Errors
    /// A URL that cannot be read.
    pub async fn write(self, redis: Redis, metrics: Metrics, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut redis = redis;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut away = false;
        while !stopping.is_cancelled() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopping.cancelled() => {}
            }
            let seen = self.take();
            let left_out = self.left_out.swap(0, Ordering::Relaxed);
            if left_out > 0 {
                metrics.heartbeats_left_out.inc_by(left_out);
                tracing::warn!(
                    left_out,
                    most = MOST,
                    "more resources than can be remembered between two rounds of heartbeats"
                );
            }
            match redis.write(&seen).await {
                Ok(()) => {
                    metrics.heartbeat(Aside::Done);
                    if std::mem::take(&mut away) {
                        tracing::info!("heartbeats reach redis again");
                    }
                }
                Err(error) => {
                    metrics.heartbeat(Aside::Failed);
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(error = format!("{error:#}"), "cannot write heartbeats");
                    }
                }
            }
        }
        Ok(())
    }
}

/// An agent's open stream.
pub struct Session {
    heartbeats: Heartbeats,
    key: (Arc<str>, ResourceId),
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut sessions = self.heartbeats.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sessions.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                sessions.remove(&self.key);
            }
        }
    }
}

/// Writes rounds; connects when it must.
pub struct Redis {
    client: redis::Client,
    connection: Option<MultiplexedConnection>,
    namespace: String,
    /// This process among the gateways: while one of them says that it is there, a resource's silence is its own.
    gateway: Uuid,
}

impl Redis {
    /// Does not connect yet.
    ///
    /// # Errors
    /// A URL that cannot be read.
    pub fn new(url: &Secret, namespace: &str) -> anyhow::Result<Self> {
        // The library's error would show the URL, and with it the password.
        let client = redis::Client::open(url.reveal())
            .map_err(|_| anyhow::anyhow!("the Redis URL cannot be read; write redis://host:port"))?;
        Ok(Self { client, connection: None, namespace: namespace.to_owned(), gateway: Uuid::new_v4() })
    }

    /// One pipeline for the whole round. Times are Redis's own: gateways' clocks may differ, and the registry compares them.
    async fn write(&mut self, seen: &Seen) -> anyhow::Result<()> {
        let outcome = self.round(seen).await;
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    async fn round(&mut self, seen: &Seen) -> anyhow::Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(ANSWER_WITHIN))
                    .set_response_timeout(Some(ANSWER_WITHIN));
                let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
                empty.insert(connection.context("connect to Redis")?)
            }
        };
        let (seconds, micros): (u64, u64) =
            redis::cmd("TIME").query_async(connection).await.context("ask Redis for the time")?;
        let now = seconds * 1_000 + micros / 1_000;
        let mut pipe = redis::pipe();
        let gateways = format!("{}:gateways", self.namespace);
        pipe.cmd("ZADD").arg(gateways).arg(now).arg(self.gateway.to_string()).ignore();
        for (tenant, resources) in seen {
            let beats = pipe.cmd("ZADD").arg(format!("{}:heartbeats:{tenant}", self.namespace)).arg("GT");
            for resource in resources {
                beats.arg(now).arg(resource.to_string());
            }
            beats.ignore();
        }
        pipe.query_async::<()>(connection).await.context("write heartbeats")
    }
}
