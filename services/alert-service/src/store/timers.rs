//! What is to be done, and when.

use sqlx::{PgConnection, Row as _};

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

/// Takes what has been due for longest of these kinds; nobody else sees it until the transaction ends.
///
/// # Errors
/// Postgres.
pub async fn take(connection: &mut PgConnection, kinds: &[&str]) -> sqlx::Result<Option<Due>> {
    let row = sqlx::query(
        "select kind, key from timers where due_at <= clock_timestamp() and kind = any($1)
         order by due_at limit 1 for update skip locked",
    )
    .bind(kinds)
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(Due { kind: row.try_get("kind")?, key: row.try_get("key")? })).transpose()
}

/// It is done.
///
/// # Errors
/// Postgres.
pub async fn done(connection: &mut PgConnection, due: &Due) -> sqlx::Result<()> {
    sqlx::query("delete from timers where kind = $1 and key = $2")
        .bind(&due.kind)
        .bind(&due.key)
        .execute(connection)
        .await
        .map(|_| ())
}
