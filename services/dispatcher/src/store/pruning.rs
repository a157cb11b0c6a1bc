//! An end to what is past its retention: never to a delivery that is under way or whose end nobody was told of.

use std::time::Duration;

use sqlx::PgPool;

use super::signed;

/// Rows that one statement deletes at the most, so that nobody waits long for it.
pub const BATCH: u64 = 1_000;

/// Deletes a batch of everything that is past its retention; gives how many rows of which table.
///
/// # Errors
/// Postgres.
pub async fn prune(pool: &PgPool, keep: Duration) -> sqlx::Result<[(&'static str, u64); 2]> {
    let keep = keep.as_secs_f64();
    Ok([
        ("deliveries", delete(pool, DELIVERIES, keep).await?),
        ("notifications", delete(pool, NOTIFICATIONS, keep).await?),
    ])
}

/// With every attempt at it. Kept a day longer than notifications are taken at all, since clocks differ: a repeat that
/// finds no delivery would make another.
const DELIVERIES: &str = "with old as (
    select id from deliveries
    where reported_at is not null and finished_at < now() - $1 * interval '1 second' - interval '1 day'
    order by finished_at limit $2 for update skip locked
), tried as (
    delete from attempts using old where delivery_id = old.id
)
delete from deliveries using old where deliveries.id = old.id";

/// After their deliveries.
const NOTIFICATIONS: &str = "delete from notifications where id in (
    select id from notifications
    where arrived_at < now() - $1 * interval '1 second' - interval '1 day'
      and not exists (select from deliveries where notification_id = notifications.id)
    order by arrived_at limit $2)";

async fn delete(pool: &PgPool, sql: &'static str, keep: f64) -> sqlx::Result<u64> {
    sqlx::query(sql).bind(keep).bind(signed(BATCH)).execute(pool).await.map(|done| done.rows_affected())
}
