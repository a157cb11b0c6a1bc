//! Messages between the transaction that made them and the broker: a thing is changed and told, or neither.
//!
//! - Messages of one key are published in the order in which they were put here, however many replicas publish: only
//!   the oldest of a key can be locked, and its lock is the key's. A key is of one topic. Whoever puts messages of one key here at the same
//!   time must hold a lock of their own, since the order is that of commits then.
//! - One that cannot be published now holds up its own key, and is tried again by itself. Topics know nothing of each other:
//!   where one can be published nowhere, however much of it waits, the others go on.
//! - One that can never be published is set aside as dead with its reason and holds nobody up. It stays in the table
//!   `outgoing` (`dead_at`, `reason`) for people to look at, until [`prune`] takes it.
//! - What is put here is published at once where [`Outbox::wake`] is told after the commit; otherwise, and after a crash,
//!   within [`SWEEP`].
//! - A crash between the broker's word and ours publishes a message again, under its old id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use lifecycle::CancellationToken;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, PgExecutor, Row as _};
use tokio::sync::{Notify, mpsc};

use crate::{Pools, retention};

/// Run after every service's migrations, so that all keep what they send alike.
pub(crate) const TABLE: &str = "create table if not exists outgoing (
    number bigint generated always as identity primary key,
    id text not null unique,
    topic text not null,
    key text not null,
    tenant text not null,
    payload bytea not null,
    traceparent text,
    created_at timestamptz not null default now(),
    attempts integer not null default 0,
    retry_at timestamptz,
    dead_at timestamptz,
    reason text
);
create index if not exists outgoing_by_topic on outgoing (topic, number) where dead_at is null;
create index if not exists outgoing_by_key on outgoing (key, number) where dead_at is null;
create index if not exists outgoing_dead on outgoing (dead_at) where dead_at is not null";

/// How often is looked for what nobody woke us for.
pub const SWEEP: Duration = Duration::from_secs(1);

/// Keys of a topic, and messages of all of them together, in one round.
const KEYS: i64 = 64;
const MESSAGES: i64 = 256;

/// Rounds of a topic once the process stops: other replicas may put more here for ever.
const LAST_ROUNDS: u32 = 16;

/// After this time a round begins no more messages, since others wait for the rows that it holds.
const ROUND: Duration = Duration::from_secs(4);

/// Rows that a replica holds which has lost its way to Postgres are free again after 15 s. And each question is planned for what
/// lies there now: a plan that is kept from a time when that was next to nothing looks at each row for each of a burst.
const MANNERS: &str = "select set_config('idle_in_transaction_session_timeout', '15s', true),
    set_config('plan_cache_mode', 'force_custom_plan', true)";

/// The longest wait before a message that failed is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How far the gauge of what waits counts; more is no other news.
const COUNTED: i64 = 100_000;

/// What is to be published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The message's id; one that was put here before is not put here again.
    pub id: String,
    /// Where it goes, in the service's own words.
    pub topic: String,
    /// Messages with the same key are published in order; another topic has other keys.
    pub key: String,
    /// Whose it is.
    pub tenant: String,
    /// The body.
    pub payload: Vec<u8>,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It may be taken later.
    Later(String),
    /// It will never be taken as it is.
    Never(String),
}

/// What a service counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The broker has a message of this topic, this long after it was put here.
    Published(String, Duration),
    /// A message of this topic was set aside.
    Dead(String),
    /// So many wait, as far as was counted.
    Waiting(i64),
}

/// Puts messages here, in the transaction that makes them.
///
/// # Errors
/// Postgres.
pub async fn put(connection: &mut PgConnection, messages: &[Message]) -> sqlx::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&Message) -> &str| messages.iter().map(of).collect::<Vec<_>>();
    let payloads: Vec<&[u8]> = messages.iter().map(|message| message.payload.as_slice()).collect();
    let traces: Vec<Option<&str>> = messages.iter().map(|message| message.traceparent.as_deref()).collect();
    sqlx::query(
        "insert into outgoing (id, topic, key, tenant, payload, traceparent)
         select id, topic, key, tenant, payload, traceparent
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::text[]) with ordinality
             message (id, topic, key, tenant, payload, traceparent, place)
         order by place
         on conflict (id) do nothing",
    )
    .bind(column(|message| &message.id))
    .bind(column(|message| &message.topic))
    .bind(column(|message| &message.key))
    .bind(column(|message| &message.tenant))
    .bind(payloads)
    .bind(traces)
    .execute(connection)
    .await
    .map(|_| ())
}

/// Deletes what was set aside longer than `keep` ago; gives how many, a [`retention::BATCH`] at the most.
///
/// # Errors
/// Postgres.
pub async fn prune(store: impl PgExecutor<'_>, keep: Duration) -> sqlx::Result<u64> {
    const DEAD: &str = "delete from outgoing where number in (
        select number from outgoing where dead_at < now() - $1 * interval '1 second' order by dead_at limit $2)";
    retention::delete(store, DEAD, keep).await
}

/// Publishes what lies here.
pub struct Outbox {
    /// Where it lies.
    pub pools: Pools,
    /// Told by whoever has put something here and committed it.
    pub wake: Arc<Notify>,
}

/// A message and its place.
struct Row {
    number: i64,
    attempts: i32,
    age: f64,
    message: Message,
}

impl FromRow<'_, PgRow> for Row {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            number: row.try_get("number")?,
            attempts: row.try_get("attempts")?,
            age: row.try_get("age")?,
            message: Message {
                id: row.try_get("id")?,
                topic: row.try_get("topic")?,
                key: row.try_get("key")?,
                tenant: row.try_get("tenant")?,
                payload: row.try_get("payload")?,
                traceparent: row.try_get("traceparent")?,
            },
        })
    }
}

/// Publishes each topic that is found by itself, until no more can be found and all is done. One that is found while it is
/// published is published once more: it may have been looked at before.
async fn publish_topics<P>(
    mut found: mpsc::UnboundedReceiver<String>,
    said: &impl Fn(sqlx::Result<()>),
    publish: impl Fn(String) -> P,
) where
    P: Future<Output = (String, sqlx::Result<()>)>,
{
    let mut running = FuturesUnordered::new();
    let mut found_again: BTreeMap<String, bool> = BTreeMap::new();
    let mut may_be_more = true;
    while may_be_more || !running.is_empty() {
        tokio::select! {
            topic = found.recv(), if may_be_more => match topic {
                None => may_be_more = false,
                Some(topic) => match found_again.get_mut(&topic) {
                    Some(again) => *again = true,
                    None => {
                        found_again.insert(topic.clone(), false);
                        running.push(publish(topic));
                    }
                },
            },
            Some((topic, outcome)) = running.next() => {
                said(outcome);
                if found_again.remove(&topic).unwrap_or_default() {
                    found_again.insert(topic.clone(), false);
                    running.push(publish(topic));
                }
            }
        }
    }
}

/// What became of a round's messages.
#[derive(Default)]
struct Round {
    sent: Vec<i64>,
    dead: Vec<(i64, String)>,
    failed: Vec<(i64, Duration)>,
    events: Vec<Event>,
}

impl Outbox {
    /// Publishes by `publish` until the process stops, and tells `count` what came of it.
    ///
    /// # Errors
    /// None: what cannot be published now is published later.
    pub async fn run<F>(
        self,
        stopping: CancellationToken,
        publish: impl Fn(Message) -> F,
        count: impl Fn(Event),
    ) -> anyhow::Result<()>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let (found, topics) = mpsc::unbounded_channel();
        let failing = AtomicBool::new(false);
        let said = |outcome: sqlx::Result<()>| match outcome {
            Ok(()) => failing.store(false, Ordering::Relaxed),
            Err(error) if !failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "messages wait in the outbox")
            }
            Err(_) => {}
        };
        // Side by side: a round holds a connection and locks, so it must go on while others are looked for.
        let looking = self.look(found, &stopping, &said, &count);
        let publishing = publish_topics(topics, &said, |topic| self.publish_all(topic, &stopping, &publish, &count));
        tokio::join!(looking, publishing);
        Ok(())
    }

    /// Names the topics of what lies here to `found`, whenever somebody says that there is something and in each [`SWEEP`].
    async fn look(
        &self,
        found: mpsc::UnboundedSender<String>,
        stopping: &CancellationToken,
        said: &impl Fn(sqlx::Result<()>),
        count: &impl Fn(Event),
    ) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let (is_sweep, is_end) = tokio::select! {
                biased;
                // What was committed last should not wait for the next start.
                () = stopping.cancelled() => (false, true),
                _ = sweep.tick() => (true, false),
                () = self.wake.notified() => (false, false),
            };
            match self.pools.bounded(self.topics()).await {
                Ok(topics) => topics.into_iter().for_each(|topic| {
                    let _ = found.send(topic);
                }),
                Err(error) => said(Err(error)),
            }
            if is_sweep && let Ok(waiting) = self.pools.bounded(self.waiting()).await {
                count(Event::Waiting(waiting));
            }
            if is_end {
                return;
            }
        }
    }

    /// Round after round of one topic, as long as there is something that can be published.
    async fn publish_all<F>(
        &self,
        topic: String,
        stopping: &CancellationToken,
        publish: &impl Fn(Message) -> F,
        count: &impl Fn(Event),
    ) -> (String, sqlx::Result<()>)
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let mut last = 0;
        loop {
            match self.round(&topic, publish).await {
                Ok(Some(round)) => {
                    let came_on = !(round.sent.is_empty() && round.dead.is_empty());
                    round.events.into_iter().for_each(count);
                    last += u32::from(stopping.is_cancelled());
                    if !came_on || last > LAST_ROUNDS {
                        return (topic, Ok(()));
                    }
                }
                Ok(None) => return (topic, Ok(())),
                Err(error) => return (topic, Err(error)),
            }
        }
    }

    /// The topics of what lies here, each found with one look into the index.
    async fn topics(&self) -> sqlx::Result<Vec<String>> {
        sqlx::query_scalar(
            "with recursive topics (topic) as (
                 (select topic from outgoing where dead_at is null order by topic limit 1)
                 union all
                 select (select topic from outgoing where dead_at is null and topic > topics.topic order by topic limit 1)
                 from topics where topics.topic is not null)
             select topic from topics where topic is not null",
        )
        .fetch_all(&self.pools.work)
        .await
    }

    /// The rows stay locked until the broker has answered: no other replica publishes them meanwhile, and if this
    /// process dies, the next one finds them waiting. `None` when there is nothing to do.
    async fn round<F>(&self, topic: &str, publish: &impl Fn(Message) -> F) -> sqlx::Result<Option<Round>>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let (mut transaction, rows) = self
            .pools
            .bounded(async {
                let mut transaction = self.pools.work.begin().await?;
                let rows = take(&mut transaction, topic).await?;
                Ok((transaction, rows))
            })
            .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let round = publish_in_order(rows, publish).await;
        self.pools
            .bounded(async {
                mark(&mut transaction, &round).await?;
                transaction.commit().await
            })
            .await?;
        Ok(Some(round))
    }

    async fn waiting(&self) -> sqlx::Result<i64> {
        sqlx::query_scalar("select count(*) from (select from outgoing where dead_at is null limit $1) waiting")
            .bind(COUNTED)
            .fetch_one(&self.pools.work)
            .await
    }
}

async fn take(connection: &mut PgConnection, topic: &str) -> sqlx::Result<Vec<Row>> {
    sqlx::query(MANNERS).execute(&mut *connection).await?;
    let keys: Vec<String> = sqlx::query_scalar(
        "select key from outgoing head
         where topic = $2 and dead_at is null and (retry_at is null or retry_at <= clock_timestamp())
           and not exists (select from outgoing earlier
                           where earlier.key = head.key and earlier.dead_at is null and earlier.number < head.number)
         order by number limit $1 for update of head skip locked",
    )
    .bind(KEYS)
    .bind(topic)
    .fetch_all(&mut *connection)
    .await?;
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_as(
        "select number, id, topic, key, tenant, payload, traceparent, attempts,
             extract(epoch from clock_timestamp() - created_at)::double precision as age
         from outgoing where key = any($1) and dead_at is null order by number limit $2",
    )
    .bind(keys)
    .bind(MESSAGES)
    .fetch_all(connection)
    .await
}

async fn publish_in_order<F>(rows: Vec<Row>, publish: &impl Fn(Message) -> F) -> Round
where
    F: Future<Output = Result<(), Failure>>,
{
    let begun = Instant::now();
    let mut keys: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in rows {
        keys.entry(row.message.key.clone()).or_default().push(row);
    }
    let rounds = join_all(keys.into_values().map(async |rows| {
        let mut round = Round::default();
        for row in rows {
            if begun.elapsed() > ROUND {
                break;
            }
            let topic = row.message.topic.clone();
            let published = publish(row.message).await;
            match published {
                Ok(()) => {
                    let age = Duration::try_from_secs_f64(row.age).unwrap_or_default();
                    round.events.push(Event::Published(topic, age + begun.elapsed()));
                    round.sent.push(row.number);
                }
                Err(Failure::Never(reason)) => {
                    tracing::error!(
                        number = row.number,
                        topic,
                        reason,
                        "a message can never be published; it is set aside"
                    );
                    round.events.push(Event::Dead(topic));
                    round.dead.push((row.number, reason));
                }
                Err(Failure::Later(reason)) => {
                    tracing::debug!(number = row.number, topic, reason, "a message cannot be published yet");
                    round.failed.push((row.number, pause(row.attempts)));
                    break;
                }
            }
        }
        round
    }))
    .await;
    rounds.into_iter().fold(Round::default(), Round::with)
}

impl Round {
    fn with(mut self, other: Self) -> Self {
        self.sent.extend(other.sent);
        self.dead.extend(other.dead);
        self.failed.extend(other.failed);
        self.events.extend(other.events);
        self
    }
}

fn pause(attempts: i32) -> Duration {
    let doubled = 2_u32.saturating_pow(u32::try_from(attempts).unwrap_or_default().min(10));
    (Duration::from_millis(50) * doubled).min(LONGEST_PAUSE)
}

async fn mark(connection: &mut PgConnection, round: &Round) -> sqlx::Result<()> {
    if !round.sent.is_empty() {
        sqlx::query("delete from outgoing where number = any($1)").bind(&round.sent).execute(&mut *connection).await?;
    }
    if !round.dead.is_empty() {
        let (numbers, reasons): (Vec<i64>, Vec<&str>) =
            round.dead.iter().map(|(number, reason)| (*number, reason.as_str())).unzip();
        sqlx::query(
            "update outgoing set dead_at = clock_timestamp(), reason = dead.reason
             from unnest($1::bigint[], $2::text[]) dead (number, reason) where outgoing.number = dead.number",
        )
        .bind(numbers)
        .bind(reasons)
        .execute(&mut *connection)
        .await?;
    }
    if !round.failed.is_empty() {
        let (numbers, pauses): (Vec<i64>, Vec<f64>) =
            round.failed.iter().map(|(number, pause)| (*number, pause.as_secs_f64())).unzip();
        sqlx::query(
            "update outgoing set attempts = attempts + 1, retry_at = clock_timestamp() + failed.pause * interval '1 second'
             from unnest($1::bigint[], $2::double precision[]) failed (number, pause)
             where outgoing.number = failed.number",
        )
        .bind(numbers)
        .bind(pauses)
        .execute(connection)
        .await?;
    }
    Ok(())
}
