//! Partitions ahead of time, and an end to what is old enough. One replica does it, under a lease.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{Bus, Stream};
use lifecycle::CancellationToken;
use sqlx::{AssertSqlSafe, Error};
use store::Pool;
use time::{Date, OffsetDateTime};

const EVERY: Duration = Duration::from_secs(600);
/// Beyond what an agent's spool reaches back. What a stream still keeps is remembered for longer: it may be read again.
const APPLIED_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How far the broker's clock may be ahead of Postgres'.
const CLOCKS: Duration = Duration::from_secs(60 * 60);
const TABLES: [&str; 3] = ["logs", "process_snapshots", "processes"];
const DAY_NS: i128 = 86_400_000_000_000;

/// Keeps the partitions of the coming days and drops those past `retention`, until the process stops.
pub(crate) async fn run(pool: Pool, bus: Bus, retention: Duration, stopping: CancellationToken) -> anyhow::Result<()> {
    store::upkeep(pool.clone(), "partitions", EVERY, stopping, || tend(&pool, &bus, retention)).await
}

/// Makes the partitions that rows of these days go to. Rows of other days go to the default partition.
pub(crate) async fn create(pool: &Pool) -> Result<(), Error> {
    let today = OffsetDateTime::now_utc().date();
    for table in TABLES {
        for ahead in -1..=2 {
            let Some(day) = today.checked_add(time::Duration::days(ahead)) else { continue };
            create_one(pool, table, day).await?;
        }
    }
    Ok(())
}

async fn create_one(pool: &Pool, table: &str, day: Date) -> Result<(), Error> {
    let begin = i128::from(day.midnight().assume_utc().unix_timestamp()) * 1_000_000_000;
    let statement = format!(
        "create table if not exists {} partition of {table} for values from ({begin}) to ({})",
        partition(table, day),
        begin + DAY_NS,
    );
    match sqlx::query(AssertSqlSafe(statement)).execute(pool).await {
        Ok(_) => Ok(()),
        // 23514: rows of that day lie in the default partition already, and they are found there as well.
        // 42P07, 23505: another replica was quicker.
        Err(Error::Database(error))
            if error.code().is_some_and(|code| ["23514", "42P07", "23505"].contains(&&*code)) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn partition(table: &str, day: Date) -> String {
    format!("{table}_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
}

/// How far back the streams go that are written from.
async fn reach(bus: &Bus) -> anyhow::Result<Duration> {
    let mut oldest = None;
    for stream in (0..bus.settings().shards).flat_map(|shard| [Stream::Logs(shard), Stream::Processes(shard)]) {
        let kept = bus.progress(stream).await?.oldest;
        oldest = [oldest, kept].into_iter().flatten().min();
    }
    let Some(oldest) = oldest else { return Ok(Duration::ZERO) };
    let since = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_nanos(oldest)).unwrap_or_default();
    Ok(since + CLOCKS)
}

async fn tend(pool: &Pool, bus: &Bus, retention: Duration) -> Result<(), Error> {
    create(pool).await?;
    let oldest = OffsetDateTime::now_utc() - retention;
    for table in TABLES {
        let names: Vec<String> = sqlx::query_scalar(
            "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
             where i.inhparent = $1::regclass and c.relname < $2 and c.relname ~ '_[0-9]{8}$'",
        )
        .bind(table)
        .bind(partition(table, oldest.date()))
        .fetch_all(pool)
        .await?;
        for name in names {
            tracing::info!(partition = name, "dropping what is past its retention");
            sqlx::query(AssertSqlSafe(format!("drop table if exists {name}"))).execute(pool).await?;
        }
        let oldest_ns = i64::try_from(oldest.unix_timestamp_nanos()).unwrap_or(i64::MIN);
        let statement = format!("delete from {table}_default where time_ns < $1");
        sqlx::query(AssertSqlSafe(statement)).bind(oldest_ns).execute(pool).await?;
    }
    match reach(bus).await {
        Ok(reach) => {
            let keep = reach.max(APPLIED_KEPT).as_secs_f64();
            sqlx::query("delete from applied where applied_at < now() - $1 * interval '1 second'")
                .bind(keep)
                .execute(pool)
                .await?;
        }
        Err(error) => tracing::debug!(error = format!("{error:#}"), "nothing is forgotten while the broker is away"),
    }
    sqlx::query("delete from log_resources where last_seen < now() - $1 * interval '1 second' - interval '1 day'")
        .bind(retention.as_secs_f64())
        .execute(pool)
        .await?;
    Ok(())
}
