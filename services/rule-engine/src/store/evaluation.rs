//! Snapshots of shards, and which replicas there are.

use std::time::Duration;

use sqlx::Row as _;
use uuid::Uuid;

use super::Store;

/// A place in a stream: everything up to it was evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub sequence: u64,
    /// When the broker took the message there; 0 when none was read yet.
    pub published_unix_nano: u64,
}

/// Where the evaluation of a shard stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The rules that it was made with.
    pub revision: i64,
    pub metrics: Position,
    pub logs: Position,
    pub state: Vec<u8>,
}

/// What a new owner finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has ever owned the shard.
    Nothing,
    /// The last owner's snapshot, which it can no longer write.
    Snapshot(Snapshot),
    /// A newer owner was here.
    Fenced,
}

/// A newer owner has the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced;

impl Store {
    /// Puts `epoch` on a shard's snapshot, and reads it.
    ///
    /// # Errors
    /// Postgres.
    pub async fn claim(&self, shard: u16, epoch: i64) -> Result<Claim, sqlx::Error> {
        let claimed = sqlx::query(
            "update snapshots set epoch = $2 where shard = $1 and epoch <= $2
             returning revision, metrics_sequence, metrics_published_unix_nano, logs_sequence,
                       logs_published_unix_nano, state",
        )
        .bind(i32::from(shard))
        .bind(epoch)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = claimed else {
            let exists: bool = sqlx::query_scalar("select exists (select from snapshots where shard = $1)")
                .bind(i32::from(shard))
                .fetch_one(&self.pool)
                .await?;
            return Ok(if exists { Claim::Fenced } else { Claim::Nothing });
        };
        let position = |sequence, published| {
            Ok::<_, sqlx::Error>(Position {
                sequence: super::row::number(&row, sequence)?,
                published_unix_nano: super::row::number(&row, published)?,
            })
        };
        Ok(Claim::Snapshot(Snapshot {
            revision: row.try_get("revision")?,
            metrics: position("metrics_sequence", "metrics_published_unix_nano")?,
            logs: position("logs_sequence", "logs_published_unix_nano")?,
            state: row.try_get("state")?,
        }))
    }

    /// Keeps a snapshot, unless a newer owner has claimed the shard.
    ///
    /// # Errors
    /// Postgres.
    pub async fn save(&self, shard: u16, epoch: i64, snapshot: &Snapshot) -> Result<Result<(), Fenced>, sqlx::Error> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let saved = sqlx::query(
            "insert into snapshots as kept (shard, epoch, revision, metrics_sequence, metrics_published_unix_nano,
                 logs_sequence, logs_published_unix_nano, state)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (shard) do update
             set epoch = excluded.epoch, revision = excluded.revision, metrics_sequence = excluded.metrics_sequence,
                 metrics_published_unix_nano = excluded.metrics_published_unix_nano,
                 logs_sequence = excluded.logs_sequence,
                 logs_published_unix_nano = excluded.logs_published_unix_nano,
                 state = excluded.state, saved_at = now()
             where kept.epoch <= excluded.epoch",
        )
        .bind(i32::from(shard))
        .bind(epoch)
        .bind(snapshot.revision)
        .bind(signed(snapshot.metrics.sequence))
        .bind(signed(snapshot.metrics.published_unix_nano))
        .bind(signed(snapshot.logs.sequence))
        .bind(signed(snapshot.logs.published_unix_nano))
        .bind(&snapshot.state)
        .execute(&self.pool)
        .await?;
        Ok(if saved.rows_affected() == 1 { Ok(()) } else { Err(Fenced) })
    }

    /// Says that a replica is there, and counts all that said so within `ttl`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn count_replicas(&self, replica: Uuid, ttl: Duration) -> Result<u16, sqlx::Error> {
        let count: i64 = sqlx::query_scalar(
            "with here as (
                 insert into replicas (id, seen_at) values ($1, clock_timestamp())
                 on conflict (id) do update set seen_at = excluded.seen_at
             )
             select 1 + count(*) from replicas
             where id <> $1 and seen_at > clock_timestamp() - $2 * interval '1 second'",
        )
        .bind(replica)
        .bind(ttl.as_secs_f64())
        .fetch_one(&self.pool)
        .await?;
        Ok(u16::try_from(count).unwrap_or(u16::MAX))
    }

    /// Takes a replica off the list, and with it those that have been gone for a day.
    ///
    /// # Errors
    /// Postgres.
    pub async fn forget_replica(&self, replica: Uuid) -> Result<(), sqlx::Error> {
        sqlx::query("delete from replicas where id = $1 or seen_at < now() - interval '1 day'")
            .bind(replica)
            .execute(&self.pool)
            .await
            .map(|_| ())
    }
}
