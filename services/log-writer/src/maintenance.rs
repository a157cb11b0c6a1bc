//! Partitions ahead of time, and an end to what is old enough. One replica does it, under a lease.
//!
//! Tables are locked for moments only, and nobody waits long for that: what cannot be locked now is done in a later round.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{Bus, Stream};
use lifecycle::CancellationToken;
use sqlx::{AssertSqlSafe, Error, Postgres, Transaction};
use store::Pool;
use time::{Date, OffsetDateTime};

use crate::metrics::Metrics;
use crate::store::APPLIED_LOCK;

const EVERY: Duration = Duration::from_secs(600);
/// How far the broker's clock may be ahead of Postgres', and how late a day of `applied` may end.
const SLACK: Duration = Duration::from_secs(24 * 60 * 60);
/// Behind a long search, every insert would wait for whoever waits for a lock on the whole table.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '2s'";
const TABLES: [&str; 3] = ["logs", "process_snapshots", "processes"];
const DAY_NS: i128 = 86_400_000_000_000;

/// What is kept for how long.
#[derive(Clone)]
pub(crate) struct Upkeep {
    pub(crate) pool: Pool,
    pub(crate) bus: Bus,
    pub(crate) metrics: Metrics,
    pub(crate) retention: Duration,
    /// How long is remembered what was stored, at the least.
    pub(crate) remembered: Duration,
}

impl Upkeep {
    /// Keeps the partitions of the coming days and drops those past their time, until the process stops.
    pub(crate) async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        store::upkeep(self.pool.clone(), "partitions", EVERY, stopping, || self.round()).await
    }

    /// Makes the partitions that rows of these days go to. Rows of other days go to the default partition.
    pub(crate) async fn prepare(&self) -> Result<(), Error> {
        let today = OffsetDateTime::now_utc().date();
        for day in (-1..=2).filter_map(|ahead| today.checked_add(time::Duration::days(ahead))) {
            for table in TABLES {
                self.make(table, day, false).await?;
            }
            self.make("applied", day, false).await?;
        }
        Ok(())
    }

    async fn round(&self) -> Result<(), Error> {
        self.prepare().await?;
        self.begin_day().await?;
        let now = OffsetDateTime::now_utc();
        for table in TABLES {
            self.drop_before(table, now - self.retention).await?;
            let oldest_ns = i64::try_from((now - self.retention).unix_timestamp_nanos()).unwrap_or(i64::MIN);
            let statement = format!("delete from {table}_default where time_ns < $1");
            sqlx::query(AssertSqlSafe(statement)).bind(oldest_ns).execute(&self.pool).await?;
        }
        match self.reach().await {
            Ok(reach) => {
                let oldest = now - reach.max(self.remembered) - SLACK;
                self.drop_before("applied", oldest).await?;
                let statement = "delete from applied_default where day < $1";
                sqlx::query(statement).bind(oldest.date()).execute(&self.pool).await?;
            }
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "nothing is forgotten while the broker is away")
            }
        }
        sqlx::query("delete from log_resources where last_seen < now() - $1 * interval '1 second' - interval '1 day'")
            .bind(self.retention.as_secs_f64())
            .execute(&self.pool)
            .await
            .map(|_| ())
    }

    /// From now on, what is stored is remembered under today; waits until nobody inserts under the day before.
    async fn begin_day(&self) -> Result<(), Error> {
        let mut transaction = self.locking().await?;
        sqlx::query("select pg_advisory_xact_lock($1)").bind(APPLIED_LOCK).execute(&mut *transaction).await?;
        sqlx::query("update applied_day set day = current_date where day < current_date")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// How far back the streams go that are written from: what they keep may be read again.
    async fn reach(&self) -> anyhow::Result<Duration> {
        let mut oldest = None;
        for shard in 0..self.bus.settings().shards {
            for stream in [Stream::Logs(shard), Stream::Processes(shard)] {
                let kept = self.bus.progress(stream).await?.oldest;
                oldest = [oldest, kept].into_iter().flatten().min();
            }
        }
        let Some(oldest) = oldest else { return Ok(Duration::ZERO) };
        Ok(SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_nanos(oldest)).unwrap_or_default())
    }

    /// Makes the partition of a day. Rows of that day that came before it lie in the default partition, which then refuses:
    /// they are moved into it.
    async fn make(&self, table: &'static str, day: Date, move_rows: bool) -> Result<(), Error> {
        match self.try_make(table, day, move_rows).await {
            Err(Error::Database(error)) if error.code().as_deref() == Some("23514") && !move_rows => {
                Box::pin(self.make(table, day, true)).await
            }
            // 42P07, 23505, 42P17: another replica was quicker. 55P03: not now.
            Err(Error::Database(error)) if is_passing(error.code().as_deref()) => {
                tracing::debug!(table, %day, %error, "a partition was not made");
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn try_make(&self, table: &str, day: Date, move_rows: bool) -> Result<(), Error> {
        let name = partition(table, day);
        let exists: bool =
            sqlx::query_scalar("select to_regclass($1) is not null").bind(&name).fetch_one(&self.pool).await?;
        if exists {
            return Ok(());
        }
        let (column, begin, end) = bounds(table, day);
        let mut transaction = self.locking().await?;
        let mut run = async |statement: String| {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await.map(|done| done.rows_affected())
        };
        if move_rows {
            run(format!("create table {name} (like {table} including defaults)")).await?;
            let moved = run(format!(
                "with moved as (delete from {table}_default where {column} >= {begin} and {column} < {end} returning *)
                 insert into {name} select * from moved"
            ))
            .await?;
            run(format!("alter table {table} attach partition {name} for values from ({begin}) to ({end})")).await?;
            tracing::warn!(table, %day, moved, "moved rows of a day that came before its partition");
            self.metrics.moved_rows.inc_by(moved);
        } else {
            run(format!("create table {name} partition of {table} for values from ({begin}) to ({end})")).await?;
        }
        transaction.commit().await
    }

    /// Drops the partitions that end before `oldest`.
    async fn drop_before(&self, table: &str, oldest: OffsetDateTime) -> Result<(), Error> {
        let partitions: Vec<(String,)> =
            sqlx::query_as("select inhrelid::regclass::text from pg_inherits where inhparent = $1::text::regclass")
                .bind(table)
                .fetch_all(&self.pool)
                .await?;
        // Names are made by `partition`, so they sort by day; the default's has no digits behind the table's.
        let limit = partition(table, oldest.date());
        for (name,) in partitions.into_iter().filter(|(name,)| is_day(name, table) && *name < limit) {
            let mut transaction = self.locking().await?;
            let dropped = sqlx::query(AssertSqlSafe(format!("drop table {name}"))).execute(&mut *transaction).await;
            match dropped {
                Ok(_) => {
                    transaction.commit().await?;
                    tracing::info!(partition = name, "dropped what is past its retention");
                }
                // 42P01: another replica was quicker.
                Err(Error::Database(error))
                    if ["42P01", "55P03"].iter().any(|c| error.code().as_deref() == Some(c)) =>
                {
                    tracing::debug!(partition = name, %error, "a partition was not dropped");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn locking(&self) -> Result<Transaction<'static, Postgres>, Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        Ok(transaction)
    }
}

fn is_passing(code: Option<&str>) -> bool {
    code.is_some_and(|code| ["42P07", "23505", "42P17", "55P03"].contains(&code))
}

fn is_day(name: &str, table: &str) -> bool {
    let day = name.strip_prefix(table).and_then(|rest| rest.strip_prefix('_'));
    day.is_some_and(|day| day.len() == 8 && day.bytes().all(|digit| digit.is_ascii_digit()))
}

fn partition(table: &str, day: Date) -> String {
    format!("{table}_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
}

/// The column that a table is partitioned by, and a day's bounds in it.
fn bounds(table: &str, day: Date) -> (&'static str, String, String) {
    if table == "applied" {
        let next = day.next_day().unwrap_or(day);
        return ("day", format!("'{day}'"), format!("'{next}'"));
    }
    let begin = i128::from(day.midnight().assume_utc().unix_timestamp()) * 1_000_000_000;
    ("time_ns", begin.to_string(), (begin + DAY_NS).to_string())
}
