//! Every SQL statement of auth.

use std::time::Duration;

use authn::Issued;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Postgres, Row as _, Transaction};
use store::{Migrations, Pool, fault};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::metrics::LoginOutcome;
use crate::session::TokenHash;

/// Brings the schema `auth` up to date.
pub const MIGRATIONS: Migrations =
    store::migrations!("../../../migrations/auth"; 1 "create_users", 2 "create_sessions");

/// Any number that no other lock of this database uses.
const BOOTSTRAP_LOCK: i64 = 0x5167_6874_6175_7468;
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// A user and what they may do.
#[derive(Debug, Clone)]
pub struct Account {
    /// Stays, whatever the name becomes.
    pub id: Uuid,
    pub tenant: String,
    pub username: String,
    pub roles: Vec<String>,
    pub permissions: Vec<String>,
}

/// An account with what a login is judged by.
pub struct Credentials {
    pub account: Account,
    pub password_hash: String,
    pub disabled: bool,
}

impl FromRow<'_, PgRow> for Account {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            tenant: row.try_get("tenant")?,
            username: row.try_get("username")?,
            roles: row.try_get("roles")?,
            permissions: row.try_get("permissions")?,
        })
    }
}

impl FromRow<'_, PgRow> for Credentials {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            account: Account::from_row(row)?,
            password_hash: row.try_get("password_hash")?,
            disabled: row.try_get("disabled")?,
        })
    }
}

/// One login attempt, for the record.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    pub tenant: &'a str,
    pub username: &'a str,
    pub source: &'a str,
}

/// What became of a refresh token.
pub enum Rotation {
    /// It was good, and is used up now.
    Rotated(Account),
    /// It had been used before, so somebody holds a copy: the session is revoked.
    Reused { session: Uuid, user: Uuid },
    /// It is unknown or expired, or its session or user is not welcome any more.
    Refused,
}

/// Auth's tables.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
}

impl Store {
    /// Over the tables of `pool`'s schema.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    pub(crate) async fn credentials(&self, tenant: &str, username: &str) -> fault::Result<Option<Credentials>> {
        sqlx::query_as(
            "select id, tenant, username, password_hash, disabled_at is not null as disabled,
                    array(select role from user_roles where user_id = id order by role) as roles,
                    array(select distinct permission from user_roles join role_permissions using (role)
                          where user_id = id order by permission) as permissions
             from users where tenant = $1 and lower(username) = lower($2)",
        )
        .bind(tenant)
        .bind(username)
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)
    }

    pub(crate) async fn record(
        &self,
        attempt: Attempt<'_>,
        outcome: LoginOutcome,
        user: Option<Uuid>,
    ) -> fault::Result<()> {
        sqlx::query(
            "insert into login_attempts (tenant, username, source, outcome, user_id) values ($1, $2, $3, $4, $5)",
        )
        .bind(attempt.tenant)
        .bind(attempt.username)
        .bind(attempt.source)
        .bind(outcome.as_str())
        .bind(user)
        .execute(&self.pool)
        .await
        .map_err(fault)?;
        Ok(())
    }

    pub(crate) async fn open_session(
        &self,
        account: &Account,
        source: &str,
        token: &TokenHash,
        lifetime: Duration,
    ) -> fault::Result<()> {
        sqlx::query(
            "with opened as (
                 insert into sessions (id, user_id, source, expires_at)
                 values ($1, $2, $3, now() + $4 * interval '1 second') returning id)
             insert into refresh_tokens (hash, session_id) select $5, id from opened",
        )
        .bind(Uuid::new_v4())
        .bind(account.id)
        .bind(source)
        .bind(lifetime.as_secs_f64())
        .bind(token.as_slice())
        .execute(&self.pool)
        .await
        .map_err(fault)?;
        Ok(())
    }

    pub(crate) async fn rotate(&self, used: &TokenHash, next: &TokenHash) -> fault::Result<Rotation> {
        let mut transaction = self.pool.begin().await.map_err(fault)?;
        let rotation = rotate(&mut transaction, used, next).await.map_err(fault)?;
        transaction.commit().await.map_err(fault)?;
        Ok(rotation)
    }

    pub(crate) async fn close_session(&self, token: &TokenHash) -> fault::Result<()> {
        sqlx::query(
            "update sessions set revoked_at = now(), revoked_for = 'logout'
             where revoked_at is null and id = (select session_id from refresh_tokens where hash = $1)",
        )
        .bind(token.as_slice())
        .execute(&self.pool)
        .await
        .map_err(fault)?;
        Ok(())
    }

    pub(crate) async fn record_agent_token(
        &self,
        issued: &Issued,
        tenant: &str,
        agent_id: &str,
        issued_by: &str,
    ) -> fault::Result<()> {
        sqlx::query(
            "insert into agent_tokens (id, tenant, agent_id, issued_by, expires_at) values ($1, $2, $3, $4, $5)",
        )
        .bind(issued.id)
        .bind(tenant)
        .bind(agent_id)
        .bind(issued_by)
        .bind(OffsetDateTime::from(issued.expires))
        .execute(&self.pool)
        .await
        .map_err(fault)?;
        Ok(())
    }

    /// Sessions a day after their end, when a replayed token need not be told from an unknown one any more; attempts
    /// after 90 days.
    async fn delete_old(&self) -> Result<(), sqlx::Error> {
        let sessions =
            sqlx::query("delete from sessions where expires_at < now() - interval '1 day'").execute(&self.pool).await?;
        let attempts =
            sqlx::query("delete from login_attempts where at < now() - interval '90 days'").execute(&self.pool).await?;
        let (sessions, attempts) = (sessions.rows_affected(), attempts.rows_affected());
        tracing::debug!(sessions, attempts, "swept old sessions and attempts");
        Ok(())
    }
}

struct Presented {
    session: Uuid,
    user_id: Uuid,
    used: bool,
    welcome: bool,
}

impl FromRow<'_, PgRow> for Presented {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            session: row.try_get("session")?,
            user_id: row.try_get("user_id")?,
            used: row.try_get("used")?,
            welcome: row.try_get("welcome")?,
        })
    }
}

async fn rotate(
    transaction: &mut Transaction<'_, Postgres>,
    used: &TokenHash,
    next: &TokenHash,
) -> Result<Rotation, sqlx::Error> {
    // The lock makes two uses at once one after the other: the second one sees the first.
    let presented: Option<Presented> = sqlx::query_as(
        "select s.id as session, s.user_id, t.used_at is not null as used,
                s.revoked_at is null and s.expires_at > now() and u.disabled_at is null as welcome
         from refresh_tokens t join sessions s on s.id = t.session_id join users u on u.id = s.user_id
         where t.hash = $1 for update of t, s",
    )
    .bind(used.as_slice())
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(Presented { session, user_id, used: false, welcome: true }) = presented else {
        return refuse(transaction, presented).await;
    };
    sqlx::query("update refresh_tokens set used_at = now() where hash = $1")
        .bind(used.as_slice())
        .execute(&mut **transaction)
        .await?;
    sqlx::query("insert into refresh_tokens (hash, session_id) values ($1, $2)")
        .bind(next.as_slice())
        .bind(session)
        .execute(&mut **transaction)
        .await?;
    // Roles are read again at every refresh, so that a change of them takes effect within one access token's life.
    let account = sqlx::query_as(
        "select id, tenant, username,
                array(select role from user_roles where user_id = id order by role) as roles,
                array(select distinct permission from user_roles join role_permissions using (role)
                      where user_id = id order by permission) as permissions
         from users where id = $1",
    )
    .bind(user_id)
    .fetch_one(&mut **transaction)
    .await?;
    Ok(Rotation::Rotated(account))
}

async fn refuse(
    transaction: &mut Transaction<'_, Postgres>,
    presented: Option<Presented>,
) -> Result<Rotation, sqlx::Error> {
    let Some(Presented { session, user_id, used: true, welcome: true }) = presented else {
        return Ok(Rotation::Refused);
    };
    sqlx::query("update sessions set revoked_at = now(), revoked_for = 'reuse' where id = $1")
        .bind(session)
        .execute(&mut **transaction)
        .await?;
    Ok(Rotation::Reused { session, user: user_id })
}

/// Deletes what is of no use any more, every hour, until the process stops.
///
/// # Errors
/// None: what fails is tried again.
pub async fn sweep(store: Store, stopping: lifecycle::CancellationToken) -> anyhow::Result<()> {
    ::store::upkeep(store.pool.clone(), "sweep", SWEEP_EVERY, stopping, || store.delete_old()).await
}

/// The first start, one replica at a time.
pub struct Bootstrap {
    transaction: Transaction<'static, Postgres>,
}

impl Bootstrap {
    pub(crate) async fn begin(pool: &Pool) -> Result<Self, sqlx::Error> {
        let mut transaction = pool.begin().await?;
        sqlx::query("select pg_advisory_xact_lock($1)").bind(BOOTSTRAP_LOCK).execute(&mut *transaction).await?;
        Ok(Self { transaction })
    }

    pub(crate) async fn signing_key(&mut self) -> Result<Option<Vec<u8>>, sqlx::Error> {
        sqlx::query_scalar("select pkcs8 from signing_keys order by created_at desc limit 1")
            .fetch_optional(&mut *self.transaction)
            .await
    }

    pub(crate) async fn keep_signing_key(&mut self, id: &str, pkcs8: &[u8]) -> Result<(), sqlx::Error> {
        sqlx::query("insert into signing_keys (id, pkcs8) values ($1, $2)")
            .bind(id)
            .bind(pkcs8)
            .execute(&mut *self.transaction)
            .await
            .map(|_| ())
    }

    pub(crate) async fn has_admin(&mut self) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("select exists (select from user_roles where role = 'admin')")
            .fetch_one(&mut *self.transaction)
            .await
    }

    pub(crate) async fn create_admin(&mut self, tenant: &str, username: &str, hash: &str) -> Result<(), sqlx::Error> {
        sqlx::query(
            "with admin as (
                 insert into users (id, tenant, username, password_hash) values ($1, $2, $3, $4) returning id)
             insert into user_roles (user_id, role) select id, 'admin' from admin",
        )
        .bind(Uuid::new_v4())
        .bind(tenant)
        .bind(username)
        .bind(hash)
        .execute(&mut *self.transaction)
        .await
        .map(|_| ())
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.transaction.commit().await
    }
}
