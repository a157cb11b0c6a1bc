//! Agents' tokens: which were handed out, by whom, and which were taken back. The tokens themselves are nowhere.

use authn::{Issued, Scope};
use sqlx::FromRow;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use store::fault;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;

/// One token on record.
#[derive(Debug, Clone)]
pub struct AgentToken {
    pub id: Uuid,
    pub agent_id: String,
    pub issued_by: String,
    pub issued_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
    pub revoked_at: Option<OffsetDateTime>,
}

impl FromRow<'_, PgRow> for AgentToken {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            agent_id: row.try_get("agent_id")?,
            issued_by: row.try_get("issued_by")?,
            issued_at: row.try_get("issued_at")?,
            expires_at: row.try_get("expires_at")?,
            revoked_at: row.try_get("revoked_at")?,
        })
    }
}

impl Store {
    pub(crate) async fn record_agent_token(
        &self,
        issued: &Issued,
        key_id: &str,
        scope: &Scope,
        agent_id: &str,
        issued_by: &str,
    ) -> fault::Result<()> {
        sqlx::query(
            "insert into agent_tokens (id, tenant, agent_id, key_id, issued_by, expires_at)
             values ($1, $2, $3, $4, $5, $6)",
        )
        .bind(issued.id)
        .bind(scope.tenant())
        .bind(agent_id)
        .bind(key_id)
        .bind(issued_by)
        .bind(OffsetDateTime::from(issued.expires))
        .execute(&self.pools.api)
        .await
        .map_err(fault)?;
        Ok(())
    }

    /// One agent's tokens, newest first, `limit` of them after the place `before`.
    pub(crate) async fn agent_tokens(
        &self,
        scope: &Scope,
        agent_id: &str,
        before: Option<(OffsetDateTime, Uuid)>,
        limit: usize,
    ) -> fault::Result<Vec<AgentToken>> {
        let (at, id) = before.unzip();
        sqlx::query_as(
            "select id, agent_id, issued_by, issued_at, expires_at, revoked_at from agent_tokens
             where tenant = $1 and agent_id = $2 and ($3::timestamptz is null or (issued_at, id) < ($3, $4))
             order by issued_at desc, id desc limit $5",
        )
        .bind(scope.tenant())
        .bind(agent_id)
        .bind(at)
        .bind(id)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pools.api)
        .await
        .map_err(fault)
    }

    /// Takes back one token of an agent, or all; gives how many were good, and nothing where there is none on record.
    pub(crate) async fn revoke_agent_tokens(
        &self,
        scope: &Scope,
        agent_id: &str,
        id: Option<Uuid>,
    ) -> fault::Result<Option<u32>> {
        let mut transaction = self.pools.api.begin().await.map_err(fault)?;
        let exists = "select exists (select from agent_tokens
                                     where tenant = $1 and agent_id = $2 and ($3::uuid is null or id = $3))";
        let exists: bool = sqlx::query_scalar(exists)
            .bind(scope.tenant())
            .bind(agent_id)
            .bind(id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(fault)?;
        let revoked = sqlx::query(
            "update agent_tokens set revoked_at = now()
             where tenant = $1 and agent_id = $2 and ($3::uuid is null or id = $3)
             and revoked_at is null and expires_at > now()",
        )
        .bind(scope.tenant())
        .bind(agent_id)
        .bind(id)
        .execute(&mut *transaction)
        .await
        .map_err(fault)?;
        transaction.commit().await.map_err(fault)?;
        Ok(exists.then_some(u32::try_from(revoked.rows_affected()).unwrap_or(u32::MAX)))
    }
}
