//! What is to be done, and when.

use sqlx::{PgConnection, PgPool, Row as _};

/// Something that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// What is to be done.
    pub kind: String,
    /// With what.
    pub key: String,
}

/// Has something done as soon as possible; what was due earlier stays so.
///
/// # Errors
/// Postgres.
pub async fn set(connection: &mut PgConnection, kind: &str, key: &str) -> sqlx::Result<()> {
    sqlx::query(
        "insert into timers (kind, key, due_at) values ($1, $2, now())
         on conflict (kind, key) do update set due_at = least(timers.due_at, excluded.due_at)",
    )
    .bind(kind)
    .bind(key)
    .execute(connection)
    .await
    .map(|_| ())
}

/// What has been due for longest of these kinds. Nothing is locked: whoever does it locks first what it is about, as whoever
/// sets a timer does, so that none waits for another crosswise.
///
/// # Errors
/// Postgres.
pub async fn due(pool: &PgPool, kinds: &[&str]) -> sqlx::Result<Option<Due>> {
    let row = sqlx::query(
        "select kind, key from timers where due_at <= clock_timestamp() and kind = any($1) order by due_at limit 1",
    )
    .bind(kinds)
    .fetch_optional(pool)
    .await?;
    row.map(|row| Ok(Due { kind: row.try_get("kind")?, key: row.try_get("key")? })).transpose()
}

/// It is done; in the transaction that did the last of it.
///
/// # Errors
/// Postgres.
pub async fn done(connection: &mut PgConnection, kind: &str, key: &str) -> sqlx::Result<()> {
    sqlx::query("delete from timers where kind = $1 and key = $2")
        .bind(kind)
        .bind(key)
        .execute(connection)
        .await
        .map(|_| ())
}
