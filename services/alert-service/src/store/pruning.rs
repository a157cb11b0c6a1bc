//! An end to what is past its retention: what is on is never touched, nor what is being written.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use store::outbox;
use store::retention::{BATCH, Pruned, delete};

/// Deletes a batch of everything that is past its retention; gives how many rows of which table.
///
/// # Errors
/// Postgres.
pub async fn prune(pool: PgPool, keep: Duration) -> sqlx::Result<Pruned<8>> {
    let mut transaction = pool.begin().await?;
    let left = prune_transitions(&mut transaction, keep).await?;
    let alerts = prune_alerts(&mut transaction, &left).await?;
    transaction.commit().await?;
    Ok([
        ("transitions", u64::try_from(left.len()).unwrap_or(u64::MAX)),
        ("alerts", alerts),
        ("deliveries", delete(&pool, DELIVERIES, keep).await?),
        ("notifications", delete(&pool, NOTIFICATIONS, keep).await?),
        ("groups", delete(&pool, GROUPS, keep).await?),
        ("applied_transitions", delete(&pool, APPLIED, keep).await?),
        ("awaiting", delete(&pool, AWAITING, AWAITING_KEPT).await?),
        ("outgoing", outbox::prune(&pool, keep).await?),
    ])
}

/// Gives the alerts that the transitions belonged to. Why an alert is on now stays as long as it is.
async fn prune_transitions(connection: &mut PgConnection, keep: Duration) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "delete from transitions where id in (
             select transitions.id from transitions left join alerts on alerts.id = alert_id
             where recorded_at < now() - $1 * interval '1 second'
               and (alerts.id is null or sample_unix_nano < starts_unix_nano
                    or alerts.ends_unix_nano > 0 and alerts.ends_unix_nano < (extract(epoch from now() - $1 * interval '1 second') * 1000000000)::bigint)
             order by recorded_at limit $2)
         returning alert_id",
    )
    .bind(keep.as_secs_f64())
    .bind(BATCH)
    .fetch_all(connection)
    .await
}

/// An alert that is over goes with the last transition that was heard of it: sample times prove no age, since an agent may
/// have sent them late.
async fn prune_alerts(connection: &mut PgConnection, left: &[String]) -> sqlx::Result<u64> {
    sqlx::query(
        "delete from alerts where id in (
             select id from alerts
             where id = any($1) and ends_unix_nano > 0 and not exists (select from transitions where alert_id = alerts.id)
             for update skip locked)",
    )
    .bind(left)
    .execute(connection)
    .await
    .map(|done| done.rows_affected())
}

/// What a listed alert shows of its newest notification stays.
const DELIVERIES: &str = "delete from deliveries where (notification_id, receiver) in (
    select notification_id, receiver from deliveries
    where finished_unix_nano < (extract(epoch from now() - $1 * interval '1 second') * 1000000000)::bigint
      and not exists (select from told where told.notification_id = deliveries.notification_id)
    order by finished_unix_nano limit $2)";

const NOTIFICATIONS: &str = "delete from notifications where id in (
    select id from notifications
    where created_at < now() - $1 * interval '1 second'
      and not exists (select from told where told.notification_id = notifications.id)
    order by created_at limit $2)";

/// Their sequences begin at the clock, in milliseconds, so one that has told nothing for long is as good as none.
const GROUPS: &str = "delete from groups where id in (
    select id from groups
    where sequence < (extract(epoch from now() - $1 * interval '1 second') * 1000)::bigint
      and not exists (select from told where told.group_id = groups.id)
    limit $2)";

/// A day longer than transitions are taken at all, since clocks differ.
const APPLIED: &str = "delete from applied_transitions where id in (
    select id from applied_transitions where applied_at < now() - $1 * interval '1 second' - interval '1 day'
    order by applied_at limit $2)";

/// Long after the broker has given up to bring it again.
const AWAITING_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const AWAITING: &str = "delete from awaiting where id in (
    select id from awaiting where since < now() - $1 * interval '1 second' order by since limit $2)";
