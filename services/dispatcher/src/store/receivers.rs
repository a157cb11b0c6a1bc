//! Receivers.

use fault::{Fault, Kind};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::receiver::{Draft, Receiver};
use settings::Secret;

/// Creates a receiver, or finds the one that the same idempotency key has created.
///
/// # Errors
/// The name or the key is taken by something else; Postgres.
pub async fn create(pool: &PgPool, tenant: &str, draft: &Draft, new_secret: &Secret) -> fault::Result<Receiver> {
    if let Some(receiver) = repeated(pool, tenant, draft).await? {
        return Ok(receiver);
    }
    let secret = draft.secret.as_ref().unwrap_or(new_secret);
    let inserted = sqlx::query(
        "insert into receivers (id, tenant, name, url, secret, idempotency_key) values ($1, $2, $3, $4, $5, $6)
         returning *",
    )
    .bind(Uuid::now_v7())
    .bind(tenant)
    .bind(&draft.name)
    .bind(&draft.url)
    .bind(secret.reveal())
    .bind(&draft.idempotency_key)
    .fetch_one(pool)
    .await;
    match inserted {
        Ok(row) => read(&row).map_err(store::fault),
        Err(sqlx::Error::Database(error)) if error.constraint() == Some("receivers_name") => {
            // The same request a moment ago, on another connection, may have taken the name and the key.
            match repeated(pool, tenant, draft).await? {
                Some(receiver) => Ok(receiver),
                None => Err(Fault::new(
                    Kind::Conflict,
                    "receiver_exists",
                    format!("there is a receiver named `{}` already; choose another name", draft.name),
                )),
            }
        }
        Err(sqlx::Error::Database(error)) if error.constraint() == Some("receivers_idempotency_key") => {
            repeated(pool, tenant, draft).await?.ok_or_else(|| Fault::internal(sqlx::Error::Database(error)))
        }
        Err(error) => Err(store::fault(error)),
    }
}

async fn repeated(pool: &PgPool, tenant: &str, draft: &Draft) -> fault::Result<Option<Receiver>> {
    let Some(key) = &draft.idempotency_key else { return Ok(None) };
    let row = sqlx::query("select * from receivers where tenant = $1 and idempotency_key = $2")
        .bind(tenant)
        .bind(key)
        .fetch_optional(pool)
        .await
        .map_err(store::fault)?;
    let Some(receiver) = row.as_ref().map(read).transpose().map_err(store::fault)? else { return Ok(None) };
    if draft.is_same(&receiver) {
        return Ok(Some(receiver));
    }
    let detail = "this Idempotency-Key has created another receiver; use a new key for a new document";
    Err(Fault::new(Kind::Conflict, "idempotency_key_reused", detail))
}

/// A page of receivers by name, behind the name `after`.
///
/// # Errors
/// Postgres.
pub async fn list(pool: &PgPool, tenant: &str, after: &str, limit: i64) -> sqlx::Result<Vec<Receiver>> {
    let rows = sqlx::query(
        "select * from receivers where tenant = $1 and name > $2 collate \"C\" order by name collate \"C\" limit $3",
    )
    .bind(tenant)
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &PgRow) -> sqlx::Result<Receiver> {
    Ok(Receiver {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        url: row.try_get("url")?,
        secret: Secret::from(row.try_get::<String, _>("secret")?),
        created: super::nanos(row, "created_at")?,
    })
}
