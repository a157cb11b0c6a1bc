//! An end to what is past its retention: what still fires is never touched, nor what is being written.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use store::retention::{BATCH, Pruned, delete};

/// Deletes a batch of everything that is past its retention; gives how many rows of which table.
///
/// # Errors
/// Postgres.
pub async fn prune(pool: PgPool, keep: Duration) -> sqlx::Result<Pruned<5>> {
    let mut transaction = pool.begin().await?;
    let left = prune_transitions(&mut transaction, keep).await?;
    let alerts = prune_alerts(&mut transaction, &left).await?;
    transaction.commit().await?;
    Ok([
        ("transitions", u64::try_from(left.len()).unwrap_or(u64::MAX)),
        ("alerts", alerts),
        ("deliveries", delete(&pool, DELIVERIES, keep).await?),
        ("applied_transitions", delete(&pool, APPLIED, keep).await?),
        ("outbox", delete(&pool, OUTBOX, OUTBOX_KEPT).await?),
    ])
}

/// Gives the alerts that the transitions belonged to. Why an alert fires now stays as long as it does.
async fn prune_transitions(connection: &mut PgConnection, keep: Duration) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "delete from transitions where id in (
             select transitions.id from transitions left join alerts on alerts.id = alert_id
             where recorded_at < now() - $1 * interval '1 second'
               and (alerts.state is distinct from 'firing' or sample_unix_nano < starts_unix_nano)
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
             where id = any($1) and state = 'resolved' and not exists (select from transitions where alert_id = alerts.id)
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
      and not exists (select from alerts
                      where alerts.id = deliveries.alert_id and alerts.notification_id = deliveries.notification_id)
    order by finished_unix_nano limit $2)";

/// A day longer than transitions are taken at all, since clocks differ.
const APPLIED: &str = "delete from applied_transitions where id in (
    select id from applied_transitions where applied_at < now() - $1 * interval '1 second' - interval '1 day'
    order by applied_at limit $2)";

/// Longer than a delivery may take: then its news still find what was told.
const OUTBOX_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const OUTBOX: &str = "delete from outbox where number in (
    select number from outbox where sent_at < now() - $1 * interval '1 second' order by sent_at limit $2)";
