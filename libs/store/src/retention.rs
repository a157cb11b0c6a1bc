//! An end to what is past its retention: in batches, one replica for all.

use std::time::Duration;

use lifecycle::CancellationToken;
use sqlx::PgExecutor;

use crate::{Pool, upkeep};

/// Rows that one statement deletes at the most, so that nobody waits long for it.
pub const BATCH: i64 = 1_000;

const EVERY: Duration = Duration::from_secs(600);

/// Rows that went, by table.
pub type Pruned<const TABLES: usize> = [(&'static str, u64); TABLES];

/// Prunes every ten minutes, until the process stops. `prune` deletes a [`BATCH`] of each table, and is called as long as
/// there is more; `count` hears what went.
///
/// # Errors
/// None: what cannot be deleted now is deleted later.
pub async fn run<P, const TABLES: usize>(
    pool: Pool,
    stopping: CancellationToken,
    prune: impl Fn() -> P,
    count: impl Fn(&'static str, u64),
) -> anyhow::Result<()>
where
    P: Future<Output = Result<Pruned<TABLES>, sqlx::Error>>,
{
    let round = || async {
        loop {
            let pruned = prune().await?;
            pruned.iter().for_each(|(table, rows)| count(table, *rows));
            if pruned.iter().all(|(_, rows)| *rows < BATCH.unsigned_abs()) {
                return Ok(());
            }
        }
    };
    upkeep(pool, "retention", EVERY, stopping, round).await
}

/// Runs `sql`, which deletes what is older than `$1` seconds, `$2` rows at the most; gives how many went.
///
/// # Errors
/// Postgres.
pub async fn delete(store: impl PgExecutor<'_>, sql: &'static str, keep: Duration) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(sql).bind(keep.as_secs_f64()).bind(BATCH).execute(store).await?;
    Ok(done.rows_affected())
}
