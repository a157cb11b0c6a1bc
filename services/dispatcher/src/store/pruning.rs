//! An end to what is past its retention: never to a delivery that is under way or whose end nobody was told of.

use std::time::Duration;

use sqlx::PgPool;
use store::outbox;
use store::retention::{Pruned, delete};

/// Deletes a batch of everything that is past its retention; gives how many rows of which table.
///
/// # Errors
/// Postgres.
pub async fn prune(pool: PgPool, keep: Duration) -> sqlx::Result<Pruned<4>> {
    let deliveries = delete(&pool, DELIVERIES, keep).await?;
    let notifications = delete(&pool, NOTIFICATIONS, keep).await?;
    let heard = delete(&pool, HEARD, keep).await?;
    let outgoing = outbox::prune(&pool, keep).await?;
    Ok([("deliveries", deliveries), ("notifications", notifications), ("heard", heard), ("outgoing", outgoing)])
}

/// With every attempt at it. Kept a day longer than notifications are taken at all, since clocks differ: a repeat that
/// finds no delivery would make another.
const DELIVERIES: &str = "with old as (
    select id from deliveries
    where state <> 'pending' and finished_at < now() - $1 * interval '1 second' - interval '1 day'
      and not exists (select from outgoing where outgoing.id = deliveries.id)
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

/// As long as notifications are taken at all, an older one may still come.
const HEARD: &str = "delete from heard where (receiver, group_id) in (
    select receiver, group_id from heard where heard_at < now() - $1 * interval '1 second' - interval '1 day'
    order by heard_at limit $2)";
