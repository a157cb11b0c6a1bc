//! Where the evaluation of each lane stands: snapshots in parts, changes of rules since, messages that failed.
//!
//! A snapshot is written part by part, each under a new generation that nobody reads yet; then one transaction says which
//! generations belong together, at which place in the stream. Whoever is interrupted leaves parts that the next snapshot
//! sweeps away.

use std::fmt;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::Store;
use super::row::{number, signed};
use crate::signal::Signal;

/// One signal of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// Which shard.
    pub number: u16,
    /// Which of its streams.
    pub signal: Signal,
}

/// A place in a stream: everything up to it was evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub sequence: u64,
    /// When the broker took the message there; 0 when none was read yet.
    pub published_unix_nano: u64,
}

/// A snapshot without its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedLane {
    /// The rules that it was made with.
    pub revision: i64,
    pub position: Position,
    /// The lane's time, Unix nanoseconds.
    pub stream_time: u64,
    /// The number of its last decision.
    pub order: u64,
    /// The generation of each part, and behind them that of the batches; 0 where there is nothing.
    pub generations: Vec<i64>,
}

/// What a new owner finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has ever saved anything.
    Nothing,
    /// The last owner's snapshot, which it can no longer write, and how many owners have begun from it, this one included.
    Snapshot(SavedLane, i32),
    /// A newer owner was here.
    Fenced,
}

/// A message whose evaluation did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    pub sequence: u64,
    pub published_unix_nano: u64,
}

/// A newer owner has the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced;

impl LaneId {
    pub(super) fn shard(self) -> i32 {
        i32::from(self.number)
    }

    pub(super) fn name(self) -> &'static str {
        self.signal.as_str()
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}/{}", self.number, self.signal.as_str())
    }
}

impl Store {
    /// Puts `epoch` on a lane, and reads what its last owner saved.
    ///
    /// # Errors
    /// Postgres.
    pub async fn claim(&self, lane: LaneId, epoch: i64) -> Result<Claim, sqlx::Error> {
        let claimed = sqlx::query(
            "insert into lanes as kept (shard, lane, epoch) values ($1, $2, $3)
             on conflict (shard, lane) do update set epoch = excluded.epoch, starts = kept.starts + 1
             where kept.epoch <= excluded.epoch
             returning starts, revision, sequence, published_unix_nano, stream_unix_nano, decisions, generations",
        )
        .bind(lane.shard())
        .bind(lane.name())
        .bind(epoch)
        .fetch_optional(self.work())
        .await?;
        let Some(row) = claimed else { return Ok(Claim::Fenced) };
        match row.try_get::<Option<i64>, _>("revision")? {
            None => Ok(Claim::Nothing),
            Some(revision) => Ok(Claim::Snapshot(saved(&row, revision)?, row.try_get("starts")?)),
        }
    }

    /// One part of a snapshot; none where it is not there.
    ///
    /// # Errors
    /// Postgres.
    pub async fn part(
        &self,
        lane: LaneId,
        kind: &str,
        part: i32,
        generation: i64,
    ) -> Result<Option<Vec<u8>>, sqlx::Error> {
        sqlx::query_scalar(
            "select content from lane_parts
             where shard = $1 and lane = $2 and kind = $3 and part = $4 and generation = $5",
        )
        .bind(lane.shard())
        .bind(lane.name())
        .bind(kind)
        .bind(part)
        .bind(generation)
        .fetch_optional(self.work())
        .await
    }

    /// Writes one part under a generation that no snapshot names yet, unless a newer owner has claimed the lane.
    ///
    /// # Errors
    /// Postgres.
    pub async fn put_part(
        &self,
        lane: LaneId,
        epoch: i64,
        (kind, part, generation): (&str, i32, i64),
        content: &[u8],
    ) -> Result<Result<(), Fenced>, sqlx::Error> {
        let written = sqlx::query(
            "insert into lane_parts (shard, lane, kind, part, generation, content)
             select $1, $2, $4, $5, $6, $7 from lanes where shard = $1 and lane = $2 and epoch = $3
             on conflict (shard, lane, kind, part, generation) do update set content = excluded.content",
        )
        .bind(lane.shard())
        .bind(lane.name())
        .bind(epoch)
        .bind(kind)
        .bind(part)
        .bind(generation)
        .bind(content)
        .execute(self.work());
        let written = self.pools.bounded(written).await?;
        Ok(if written.rows_affected() == 1 { Ok(()) } else { Err(Fenced) })
    }

    /// Makes a snapshot of the parts that were put, unless a newer owner has claimed the lane. Parts of kinds that this
    /// version does not know stay.
    ///
    /// # Errors
    /// Postgres.
    pub async fn save(
        &self,
        lane: LaneId,
        epoch: i64,
        snapshot: &SavedLane,
    ) -> Result<Result<(), Fenced>, sqlx::Error> {
        self.pools.bounded(self.save_unbounded(lane, epoch, snapshot)).await
    }

    async fn save_unbounded(
        &self,
        lane: LaneId,
        epoch: i64,
        snapshot: &SavedLane,
    ) -> Result<Result<(), Fenced>, sqlx::Error> {
        let mut transaction = self.work().begin().await?;
        let saved = sqlx::query(
            "update lanes set starts = 0, revision = $4, sequence = $5, published_unix_nano = $6, stream_unix_nano = $7,
                 decisions = $8, generations = $9, saved_at = now()
             where shard = $1 and lane = $2 and epoch = $3",
        )
        .bind(lane.shard())
        .bind(lane.name())
        .bind(epoch)
        .bind(snapshot.revision)
        .bind(signed(snapshot.position.sequence))
        .bind(signed(snapshot.position.published_unix_nano))
        .bind(signed(snapshot.stream_time))
        .bind(signed(snapshot.order))
        .bind(&snapshot.generations)
        .execute(&mut *transaction)
        .await?;
        if saved.rows_affected() == 0 {
            return Ok(Err(Fenced));
        }
        let sweeps = [
            "delete from lane_parts where shard = $1 and lane = $2 and kind = 'subjects'
                 and generation is distinct from ($3::bigint[])[part + 1]",
            "delete from lane_parts where shard = $1 and lane = $2 and kind = 'batches'
                 and generation is distinct from ($3::bigint[])[cardinality($3::bigint[])]",
        ];
        for sweep in sweeps {
            let query = sqlx::query(sweep).bind(lane.shard()).bind(lane.name()).bind(&snapshot.generations);
            query.execute(&mut *transaction).await?;
        }
        // What the snapshot was made with need not be switched to again.
        sqlx::query("delete from switches where shard = $1 and lane = $2 and revision <= $3")
            .bind(lane.shard())
            .bind(lane.name())
            .bind(snapshot.revision)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("delete from attempts where shard = $1 and lane = $2 and at < now() - interval '30 days'")
            .bind(lane.shard())
            .bind(lane.name())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Ok(()))
    }

    /// Notes that everything behind `sequence` is evaluated with the rules of `revision`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn note_switch(
        &self,
        lane: LaneId,
        epoch: i64,
        sequence: u64,
        revision: i64,
    ) -> Result<Result<(), Fenced>, sqlx::Error> {
        let noted = sqlx::query(
            "insert into switches (shard, lane, sequence, revision)
             select $1, $2, $4, $5 from lanes where shard = $1 and lane = $2 and epoch = $3
             on conflict (shard, lane, sequence, revision) do update set revision = excluded.revision",
        )
        .bind(lane.shard())
        .bind(lane.name())
        .bind(epoch)
        .bind(signed(sequence))
        .bind(revision)
        .execute(self.work());
        let noted = self.pools.bounded(noted).await?;
        Ok(if noted.rows_affected() == 1 { Ok(()) } else { Err(Fenced) })
    }

    /// The changes of rules since the snapshot, in order: a sequence, and the revision behind it.
    ///
    /// # Errors
    /// Postgres.
    pub async fn switches(&self, lane: LaneId) -> Result<Vec<(u64, i64)>, sqlx::Error> {
        let rows = sqlx::query(
            "select sequence, revision from switches where shard = $1 and lane = $2 order by sequence, revision",
        )
        .bind(lane.shard())
        .bind(lane.name())
        .fetch_all(self.work())
        .await?;
        rows.iter().map(|row| Ok((number(row, "sequence")?, row.try_get("revision")?))).collect()
    }

    /// Notes that the owner under `epoch` tries a message, or failed at it. Noted once an owner.
    ///
    /// # Errors
    /// Postgres.
    pub async fn note_attempt(
        &self,
        lane: LaneId,
        epoch: i64,
        message: Attempt,
        reason: &str,
    ) -> Result<(), sqlx::Error> {
        let noted = sqlx::query(
            "insert into attempts (shard, lane, sequence, published_unix_nano, epoch, reason) values ($1, $2, $3, $4, $5, $6)
             on conflict (shard, lane, sequence, published_unix_nano, epoch) do update set reason = excluded.reason",
        )
        .bind(lane.shard())
        .bind(lane.name())
        .bind(signed(message.sequence))
        .bind(signed(message.published_unix_nano))
        .bind(epoch)
        .bind(reason)
        .execute(self.work());
        self.pools.bounded(noted).await.map(|_| ())
    }

    /// The owner under `epoch` has evaluated a message after all.
    ///
    /// # Errors
    /// Postgres.
    pub async fn attempt_ended_well(&self, lane: LaneId, epoch: i64, message: Attempt) -> Result<(), sqlx::Error> {
        let ended = sqlx::query(
            "delete from attempts
             where shard = $1 and lane = $2 and sequence = $3 and published_unix_nano = $4 and epoch = $5",
        )
        .bind(lane.shard())
        .bind(lane.name())
        .bind(signed(message.sequence))
        .bind(signed(message.published_unix_nano))
        .bind(epoch)
        .execute(self.work());
        self.pools.bounded(ended).await.map(|_| ())
    }

    /// Messages that `most` owners or more have failed at.
    ///
    /// # Errors
    /// Postgres.
    pub async fn failed(&self, lane: LaneId, most: i64) -> Result<Vec<Attempt>, sqlx::Error> {
        let rows = sqlx::query(
            "select sequence, published_unix_nano from attempts where shard = $1 and lane = $2
             group by sequence, published_unix_nano having count(*) >= $3",
        )
        .bind(lane.shard())
        .bind(lane.name())
        .bind(most)
        .fetch_all(self.work())
        .await?;
        let read = |row: &PgRow| {
            Ok(Attempt { sequence: number(row, "sequence")?, published_unix_nano: number(row, "published_unix_nano")? })
        };
        rows.iter().map(read).collect()
    }
}

fn saved(row: &PgRow, revision: i64) -> Result<SavedLane, sqlx::Error> {
    Ok(SavedLane {
        revision,
        position: Position {
            sequence: number(row, "sequence")?,
            published_unix_nano: number(row, "published_unix_nano")?,
        },
        stream_time: number(row, "stream_unix_nano")?,
        order: number(row, "decisions")?,
        generations: row.try_get("generations")?,
    })
}
