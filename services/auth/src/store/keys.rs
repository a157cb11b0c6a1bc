//! Signing keys, and what was taken back.

use std::time::Duration;

use seal::Kept;
use sqlx::FromRow;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use store::fault;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;

/// A signing key.
#[derive(Clone)]
pub struct KeyRow {
    pub id: String,
    pub kept: Kept,
    pub announced_at: OffsetDateTime,
    pub active_at: OffsetDateTime,
    pub retired_at: Option<OffsetDateTime>,
    /// Seconds since `active_at` by Postgres's clock.
    pub active_for: f64,
    pub retired: bool,
}

impl FromRow<'_, PgRow> for KeyRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let retired_at: Option<OffsetDateTime> = row.try_get("retired_at")?;
        Ok(Self {
            id: row.try_get("id")?,
            kept: Kept { bytes: row.try_get("pkcs8")?, sealed: row.try_get("sealed")? },
            announced_at: row.try_get("announced_at")?,
            active_at: row.try_get("active_at")?,
            retired: retired_at.is_some(),
            retired_at,
            active_for: row.try_get("active_for")?,
        })
    }
}

/// A session or token that is good no more.
#[derive(Debug, Clone)]
pub struct Revoked {
    pub revision: i64,
    pub id: Uuid,
    pub expires_at: OffsetDateTime,
}

impl FromRow<'_, PgRow> for Revoked {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { revision: row.try_get("revision")?, id: row.try_get("id")?, expires_at: row.try_get("expires_at")? })
    }
}

impl Store {
    /// Every key, newest first.
    pub(crate) async fn keys(&self) -> Result<Vec<KeyRow>, sqlx::Error> {
        let query = sqlx::query_as(
            "select id, pkcs8, sealed, announced_at, active_at, retired_at,
                    extract(epoch from now() - active_at)::float8 as active_for
             from signing_keys order by announced_at desc, id",
        );
        self.pools.bounded(query.fetch_all(&self.pools.work)).await
    }

    pub(crate) async fn revoked_after(&self, revision: i64) -> Result<Vec<Revoked>, sqlx::Error> {
        let query = sqlx::query_as(
            "select revision, id, expires_at from revocations where revision > $1 and expires_at > now()
             order by revision",
        )
        .bind(revision);
        self.pools.bounded(query.fetch_all(&self.pools.work)).await
    }

    /// A new key that signs after `announce`, unless one was announced and is still to come.
    pub(crate) async fn announce_key(&self, id: &str, kept: &Kept, announce: Duration) -> fault::Result<bool> {
        let added = sqlx::query(
            "insert into signing_keys (id, pkcs8, sealed, active_at)
             select $1, $2, $3, now() + $4 * interval '1 second'
             where not exists (select from signing_keys where active_at > now() and retired_at is null)",
        )
        .bind(id)
        .bind(&kept.bytes)
        .bind(kept.sealed)
        .bind(announce.as_secs_f64())
        .execute(&self.pools.api)
        .await
        .map_err(fault)?;
        Ok(added.rows_affected() == 1)
    }

    pub(crate) async fn retire_key(&self, id: &str) -> fault::Result<()> {
        sqlx::query("update signing_keys set retired_at = now() where id = $1 and retired_at is null")
            .bind(id)
            .execute(&self.pools.api)
            .await
            .map_err(fault)?;
        Ok(())
    }

    /// How many agents' tokens that each key signed are good now.
    pub(crate) async fn tokens_by_key(&self) -> fault::Result<Vec<(String, i64)>> {
        sqlx::query_as(
            "select key_id, count(*) from agent_tokens where revoked_at is null and expires_at > now() group by key_id",
        )
        .fetch_all(&self.pools.api)
        .await
        .map_err(fault)
    }

    /// A key that a newer one has replaced is retired when nothing that it signed can be good any more: users' tokens last
    /// minutes, agents' are on record.
    pub(crate) async fn retire_old_keys(&self) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update signing_keys k set retired_at = now()
             where retired_at is null
             and exists (select from signing_keys n where n.active_at > k.active_at and n.retired_at is null
                         and n.active_at < now() - interval '15 minutes')
             and not exists (select from agent_tokens t where t.key_id = k.id
                             and t.revoked_at is null and t.expires_at > now() - interval '1 minute')",
        )
        .execute(&self.pools.work)
        .await
        .map(|_| ())
    }
}
