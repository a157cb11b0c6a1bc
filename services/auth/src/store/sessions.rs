//! Sessions and the refresh tokens that descend from a login.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Postgres, Row as _, Transaction};
use store::fault;
use uuid::Uuid;

use super::{Account, Store};
use crate::refresh::{self, TokenHash};

/// A session that begins.
pub struct Opened<'a> {
    pub id: Uuid,
    pub user: Uuid,
    pub source: &'a str,
    /// What its tokens follow each other by.
    pub secret: [u8; 32],
    pub token: TokenHash,
    pub lifetime: Duration,
}

/// What became of a refresh token.
pub enum Rotation {
    /// It is used up now, and `next` follows. `repeated` where it had been used a moment ago: `next` is what was given then.
    Good { account: Account, session: Uuid, next: String, repeated: bool },
    /// It had been used before, so somebody holds a copy: the session is revoked.
    Reused { session: Uuid, user: Uuid },
    /// It is unknown or expired, or its session or user is not welcome any more.
    Refused,
}

struct Presented {
    session: Uuid,
    user: Uuid,
    secret: Vec<u8>,
    used: bool,
    /// Used so short a time ago that it may be another window, or an answer that was lost.
    just_now: bool,
    welcome: bool,
}

impl FromRow<'_, PgRow> for Presented {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            session: row.try_get("session")?,
            user: row.try_get("user_id")?,
            secret: row.try_get("secret")?,
            used: row.try_get("used")?,
            just_now: row.try_get("just_now")?,
            welcome: row.try_get("welcome")?,
        })
    }
}

impl Store {
    /// Says whether it is open: not for a user who was disabled meanwhile.
    pub(crate) async fn open_session(&self, opened: Opened<'_>) -> fault::Result<bool> {
        let done = sqlx::query(
            "with welcome as (select id from users where id = $2 and disabled_at is null for share),
             opened as (
                 insert into sessions (id, user_id, source, secret, expires_at)
                 select $1, id, $3, $4, now() + $5 * interval '1 second' from welcome returning id)
             insert into refresh_tokens (hash, session_id) select $6, id from opened",
        )
        .bind(opened.id)
        .bind(opened.user)
        .bind(opened.source)
        .bind(opened.secret.as_slice())
        .bind(opened.lifetime.as_secs_f64())
        .bind(opened.token.as_slice())
        .execute(&self.pools.api)
        .await
        .map_err(fault)?;
        Ok(done.rows_affected() > 0)
    }

    pub(crate) async fn rotate(&self, used: &str, leeway: Duration) -> fault::Result<Rotation> {
        let mut transaction = self.pools.api.begin().await.map_err(fault)?;
        let rotation = rotate(&mut transaction, used, leeway).await.map_err(fault)?;
        transaction.commit().await.map_err(fault)?;
        Ok(rotation)
    }

    pub(crate) async fn close_session(&self, token: &TokenHash) -> fault::Result<()> {
        sqlx::query(
            "update sessions set revoked_at = now(), revoked_for = 'logout'
             where revoked_at is null and id = (select session_id from refresh_tokens where hash = $1)",
        )
        .bind(token.as_slice())
        .execute(&self.pools.api)
        .await
        .map_err(fault)?;
        Ok(())
    }

    /// Ends the open sessions of a user of `tenant` and counts them; nothing where there is no such user.
    pub(crate) async fn end_sessions(&self, tenant: &str, user: Uuid) -> fault::Result<Option<u32>> {
        let exists = "select exists (select from users where id = $1 and tenant = $2)";
        let exists: bool =
            sqlx::query_scalar(exists).bind(user).bind(tenant).fetch_one(&self.pools.api).await.map_err(fault)?;
        if !exists {
            return Ok(None);
        }
        let ended = sqlx::query(
            "update sessions set revoked_at = now(), revoked_for = 'ended'
             where user_id = $1 and revoked_at is null and expires_at > now()",
        )
        .bind(user)
        .execute(&self.pools.api)
        .await
        .map_err(fault)?;
        Ok(Some(u32::try_from(ended.rows_affected()).unwrap_or(u32::MAX)))
    }
}

async fn rotate(
    transaction: &mut Transaction<'_, Postgres>,
    used: &str,
    leeway: Duration,
) -> Result<Rotation, sqlx::Error> {
    let hash = refresh::hash(used);
    // The lock makes two uses at once one after the other: the second one sees the first, though it may have begun before it.
    let presented: Option<Presented> = sqlx::query_as(
        "select s.id as session, s.user_id, s.secret, t.used_at is not null as used,
                coalesce(t.used_at > clock_timestamp() - $2 * interval '1 second', false) as just_now,
                s.revoked_at is null and s.expires_at > now() and u.disabled_at is null as welcome
         from refresh_tokens t join sessions s on s.id = t.session_id join users u on u.id = s.user_id
         where t.hash = $1 for update of t, s",
    )
    .bind(hash.as_slice())
    .bind(leeway.as_secs_f64())
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(presented) = presented.filter(|presented| presented.welcome) else {
        return Ok(Rotation::Refused);
    };
    if presented.used && !presented.just_now {
        return revoke(transaction, &presented).await;
    }
    let next = refresh::successor(&presented.secret, used);
    if !presented.used {
        use_up(transaction, &hash, &presented, &next).await?;
    }
    let account = account(transaction, presented.user).await?;
    Ok(Rotation::Good { account, session: presented.session, next, repeated: presented.used })
}

async fn use_up(
    transaction: &mut Transaction<'_, Postgres>,
    used: &TokenHash,
    presented: &Presented,
    next: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("update refresh_tokens set used_at = now() where hash = $1")
        .bind(used.as_slice())
        .execute(&mut **transaction)
        .await?;
    sqlx::query("insert into refresh_tokens (hash, session_id) values ($1, $2)")
        .bind(refresh::hash(next).as_slice())
        .bind(presented.session)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Roles are read again at every refresh, so that a change of them takes effect within one access token's life.
async fn account(transaction: &mut Transaction<'_, Postgres>, user: Uuid) -> Result<Account, sqlx::Error> {
    sqlx::query_as(
        "select id, tenant, username,
                array(select role from user_roles where user_id = id order by role) as roles,
                array(select distinct permission from user_roles join role_permissions using (role)
                      where user_id = id order by permission) as permissions
         from users where id = $1",
    )
    .bind(user)
    .fetch_one(&mut **transaction)
    .await
}

async fn revoke(transaction: &mut Transaction<'_, Postgres>, presented: &Presented) -> Result<Rotation, sqlx::Error> {
    sqlx::query("update sessions set revoked_at = now(), revoked_for = 'reuse' where id = $1")
        .bind(presented.session)
        .execute(&mut **transaction)
        .await?;
    Ok(Rotation::Reused { session: presented.session, user: presented.user })
}
