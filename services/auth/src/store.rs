//! Every SQL statement of auth: here users and logins, beside it sessions, keys and agents' tokens.

mod agents;
mod bootstrap;
mod keys;
mod sessions;

use std::time::Duration;

use sqlx::FromRow;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use store::{Migrations, Pools, fault};
use uuid::Uuid;

pub use agents::AgentToken;
pub use bootstrap::Bootstrap;
pub use keys::{KeyRow, Revoked};
pub use sessions::{Opened, Rotation};

use crate::metrics::LoginOutcome;

/// Brings the schema `auth` up to date.
pub const MIGRATIONS: Migrations =
    store::migrations!("../../../migrations/auth"; 1 "create_users", 2 "create_sessions");

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
    /// They have logged in from this source before.
    pub remembered: bool,
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
            remembered: row.try_get("remembered")?,
        })
    }
}

/// One login attempt, for the record.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    pub tenant: &'a str,
    /// The name, or what stands for one that nobody has.
    pub username: &'a str,
    /// The address, or for IPv6 its network.
    pub source: &'a str,
}

/// Auth's tables.
#[derive(Clone)]
pub struct Store {
    pools: Pools,
}

impl Store {
    /// Over the tables that `pools` reach.
    #[must_use]
    pub fn new(pools: Pools) -> Self {
        Self { pools }
    }

    pub(crate) async fn credentials(&self, attempt: Attempt<'_>) -> fault::Result<Option<Credentials>> {
        sqlx::query_as(
            "select id, tenant, username, password_hash, disabled_at is not null as disabled,
                    array(select role from user_roles where user_id = id order by role) as roles,
                    array(select distinct permission from user_roles join role_permissions using (role)
                          where user_id = id order by permission) as permissions,
                    exists (select from login_attempts a where a.user_id = users.id and a.source = $3
                            and a.outcome = 'succeeded') as remembered
             from users where tenant = $1 and lower(username) = lower($2)",
        )
        .bind(attempt.tenant)
        .bind(attempt.username)
        .bind(attempt.source)
        .fetch_optional(&self.pools.api)
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
        .execute(&self.pools.api)
        .await
        .map_err(fault)?;
        Ok(())
    }

    /// Sessions a day after their end, when a replayed token need not be told from an unknown one any more; attempts
    /// after 90 days; revocations and agents' tokens when they have ended by themselves.
    async fn delete_old(&self) -> Result<(), sqlx::Error> {
        for statement in [
            "delete from sessions where expires_at < now() - interval '1 day'",
            "delete from login_attempts where at < now() - interval '90 days'",
            "delete from revocations where expires_at < now() - interval '1 hour'",
            "delete from agent_tokens where expires_at < now() - interval '90 days'",
        ] {
            sqlx::query(statement).execute(&self.pools.work).await?;
        }
        self.retire_old_keys().await
    }
}

/// Deletes what is of no use any more, every hour, until the process stops.
///
/// # Errors
/// None: what fails is tried again.
pub async fn sweep(store: Store, stopping: lifecycle::CancellationToken) -> anyhow::Result<()> {
    ::store::upkeep(store.pools.work.clone(), "sweep", SWEEP_EVERY, stopping, || store.delete_old()).await
}
