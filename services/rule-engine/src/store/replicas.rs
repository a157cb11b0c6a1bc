//! Which replicas there are.

use std::time::Duration;

use uuid::Uuid;

use super::Store;

impl Store {
    /// Says that a replica takes part, and counts all that said so within `ttl`, this one included.
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
        .fetch_one(self.work())
        .await?;
        Ok(u16::try_from(count).unwrap_or(u16::MAX))
    }

    /// How many replicas other than this one take part.
    ///
    /// # Errors
    /// Postgres.
    pub async fn count_others(&self, replica: Uuid, ttl: Duration) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "select count(*) from replicas where id <> $1 and seen_at > clock_timestamp() - $2 * interval '1 second'",
        )
        .bind(replica)
        .bind(ttl.as_secs_f64())
        .fetch_one(self.work())
        .await
    }

    /// Takes a replica off the list, and with it those that have been gone for a day.
    ///
    /// # Errors
    /// Postgres.
    pub async fn forget_replica(&self, replica: Uuid) -> Result<(), sqlx::Error> {
        sqlx::query("delete from replicas where id = $1 or seen_at < now() - interval '1 day'")
            .bind(replica)
            .execute(self.work())
            .await
            .map(|_| ())
    }
}
