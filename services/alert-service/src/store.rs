//! Every SQL statement of this service.

pub mod pruning;

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool, Row as _};

use crate::alert::{Alert, Change, State};
use crate::fence::Fence;
use crate::transition::Transition;

/// Binary and folder share one set of migrations.
pub const MIGRATIONS: store::Migrations =
    store::migrations!("../../../migrations/alert_service"; 1 "create_alerts", 2 "index_ages");

/// The schema that only this service writes.
pub const SCHEMA: &str = "alert_service";

/// Keeps everybody else from deciding about this alert until the transaction ends.
///
/// # Errors
/// Postgres.
pub async fn lock_alert(connection: &mut PgConnection, id: &str) -> sqlx::Result<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))").bind(id).execute(connection).await.map(|_| ())
}

/// Whether a transition was applied before.
///
/// # Errors
/// Postgres.
pub async fn is_applied(connection: &mut PgConnection, transition: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("select exists (select from applied_transitions where id = $1)")
        .bind(transition)
        .fetch_one(connection)
        .await
}

/// Marks a transition as applied; false when somebody did so before.
///
/// # Errors
/// Postgres.
pub async fn mark_applied(connection: &mut PgConnection, transition: &str) -> sqlx::Result<bool> {
    sqlx::query("insert into applied_transitions (id) values ($1) on conflict do nothing")
        .bind(transition)
        .execute(connection)
        .await
        .map(|done| done.rows_affected() == 1)
}

/// The fence of a shard.
///
/// # Errors
/// Postgres.
pub async fn fence(connection: &mut PgConnection, shard: &str) -> sqlx::Result<Option<Fence>> {
    let row = sqlx::query("select epoch, first_sequence from fences where shard = $1")
        .bind(shard)
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok(Fence { epoch: unsigned(&row, "epoch")?, first_sequence: unsigned(&row, "first_sequence")? }))
        .transpose()
}

/// Puts a fence up; a higher one that another replica has put up meanwhile stays.
///
/// # Errors
/// Postgres.
pub async fn raise_fence(connection: &mut PgConnection, shard: &str, fence: Fence) -> sqlx::Result<()> {
    sqlx::query(
        "insert into fences as held (shard, epoch, first_sequence) values ($1, $2, $3)
         on conflict (shard) do update set epoch = excluded.epoch, first_sequence = excluded.first_sequence
         where held.epoch < excluded.epoch
            or held.epoch = excluded.epoch and held.first_sequence > excluded.first_sequence",
    )
    .bind(shard)
    .bind(signed(fence.epoch))
    .bind(signed(fence.first_sequence))
    .execute(connection)
    .await
    .map(|_| ())
}

/// One alert as it is.
///
/// # Errors
/// Postgres.
pub async fn alert(connection: &mut PgConnection, id: &str) -> sqlx::Result<Option<Alert>> {
    let row = sqlx::query("select * from alerts where id = $1").bind(id).fetch_optional(connection).await?;
    row.as_ref().map(read_alert).transpose()
}

/// Writes an alert as it is now.
///
/// # Errors
/// Postgres.
pub async fn save_alert(connection: &mut PgConnection, alert: &Alert, notification: Option<&str>) -> sqlx::Result<()> {
    sqlx::query(
        "insert into alerts (id, tenant, rule_id, rule_version, rule_name, level, condition, state, labels,
             annotations, value, line, resource_id, receivers, starts_unix_nano, ends_unix_nano, updated_unix_nano,
             occurrences, notification_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
         on conflict (id) do update set rule_version = excluded.rule_version, rule_name = excluded.rule_name,
             level = excluded.level, condition = excluded.condition, state = excluded.state,
             labels = excluded.labels, annotations = excluded.annotations, value = excluded.value,
             line = excluded.line, resource_id = excluded.resource_id, receivers = excluded.receivers,
             starts_unix_nano = excluded.starts_unix_nano, ends_unix_nano = excluded.ends_unix_nano,
             updated_unix_nano = excluded.updated_unix_nano, occurrences = excluded.occurrences,
             notification_id = case when cardinality(excluded.receivers) = 0 then null
                 else coalesce(excluded.notification_id, alerts.notification_id) end",
    )
    .bind(&alert.id)
    .bind(&alert.tenant)
    .bind(&alert.rule_id)
    .bind(signed(alert.rule_version))
    .bind(&alert.rule_name)
    .bind(&alert.level)
    .bind(&alert.condition)
    .bind(alert.state.as_str())
    .bind(Json(&alert.labels))
    .bind(Json(&alert.annotations))
    .bind(alert.value)
    .bind(&alert.line)
    .bind(&alert.resource_id)
    .bind(&alert.receivers)
    .bind(signed(alert.starts))
    .bind(signed(alert.ends))
    .bind(signed(alert.updated))
    .bind(signed(alert.occurrences))
    .bind(notification)
    .execute(connection)
    .await
    .map(|_| ())
}

/// Keeps why the alert is what it is.
///
/// # Errors
/// Postgres.
pub async fn record(
    connection: &mut PgConnection,
    transition: &Transition,
    sequence: u64,
    alert_id: &str,
    change: &Change,
    notification: Option<&str>,
) -> sqlx::Result<()> {
    let wire = &transition.wire;
    sqlx::query(
        "insert into transitions (id, alert_id, tenant, rule_id, rule_version, series, state, value, line, condition,
             since_unix_nano, sample_unix_nano, received_unix_nano, evaluated_unix_nano, shard, epoch,
             stream_sequence, outcome, notification_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
    )
    .bind(&wire.id)
    .bind(alert_id)
    .bind(&wire.tenant)
    .bind(&wire.rule_id)
    .bind(signed(wire.rule_version))
    .bind(&wire.series)
    .bind(transition.state.as_str())
    .bind(wire.value)
    .bind(&wire.line)
    .bind(&wire.condition)
    .bind(signed(wire.since_unix_nano))
    .bind(signed(wire.sample_unix_nano))
    .bind(signed(wire.received_unix_nano))
    .bind(signed(wire.evaluated_unix_nano))
    .bind(&wire.shard)
    .bind(signed(wire.epoch))
    .bind(signed(sequence))
    .bind(change.outcome.as_str())
    .bind(notification)
    .execute(connection)
    .await
    .map(|_| ())
}

/// A notification on its way to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The notification's id.
    pub id: String,
    /// The alert that it is about.
    pub alert_id: String,
    /// What it tells.
    pub alert_state: State,
    /// How many receivers it is for.
    pub receivers: usize,
    /// The encoded `Notification`.
    pub payload: Vec<u8>,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// Puts a notification into the outbox.
///
/// # Errors
/// Postgres.
pub async fn enqueue(connection: &mut PgConnection, outgoing: &Outgoing) -> sqlx::Result<()> {
    sqlx::query(
        "insert into outbox (id, alert_id, alert_state, receivers, payload, traceparent)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&outgoing.id)
    .bind(&outgoing.alert_id)
    .bind(outgoing.alert_state.as_str())
    .bind(i32::try_from(outgoing.receivers).unwrap_or(i32::MAX))
    .bind(&outgoing.payload)
    .bind(&outgoing.traceparent)
    .execute(connection)
    .await
    .map(|_| ())
}

/// A notification that waits in the outbox.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The row.
    pub number: i64,
    /// The notification's id.
    pub id: String,
    /// The encoded `Notification`.
    pub payload: Vec<u8>,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// How long it has waited, in seconds.
    pub age: f64,
}

/// Takes the oldest waiting notifications, which nobody else then sees until the transaction ends.
///
/// # Errors
/// Postgres.
pub async fn waiting(connection: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<Waiting>> {
    let rows = sqlx::query(
        "select number, id, payload, traceparent,
             extract(epoch from clock_timestamp() - created_at)::double precision as age
         from outbox where sent_at is null order by number limit $1 for update skip locked",
    )
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Waiting {
                number: row.try_get("number")?,
                id: row.try_get("id")?,
                payload: row.try_get("payload")?,
                traceparent: row.try_get("traceparent")?,
                age: row.try_get("age")?,
            })
        })
        .collect()
}

/// Marks notifications that the broker has acknowledged.
///
/// # Errors
/// Postgres.
pub async fn mark_sent(connection: &mut PgConnection, numbers: &[i64]) -> sqlx::Result<()> {
    sqlx::query("update outbox set sent_at = clock_timestamp() where number = any($1)")
        .bind(numbers)
        .execute(connection)
        .await
        .map(|_| ())
}

/// How many notifications wait.
///
/// # Errors
/// Postgres.
pub async fn count_waiting(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from outbox where sent_at is null").fetch_one(pool).await
}

/// What the dispatcher said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The notification.
    pub notification_id: String,
    /// The receiver's name.
    pub receiver: String,
    /// The alert that was told.
    pub alert_id: String,
    /// Whether it was delivered; failed otherwise.
    pub delivered: bool,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed, or empty.
    pub error: String,
    /// When it was over.
    pub finished: u64,
}

/// Records a delivery. Gives the state of the alert that was told if this is the first news of it.
///
/// # Errors
/// Postgres.
pub async fn save_delivery(pool: &PgPool, delivery: &Delivery) -> sqlx::Result<Option<State>> {
    let told: Option<Option<String>> = sqlx::query_scalar(
        "insert into deliveries (notification_id, receiver, alert_id, state, attempts, error, finished_unix_nano)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (notification_id, receiver) do nothing
         returning (select alert_state from outbox where outbox.id = $1)",
    )
    .bind(&delivery.notification_id)
    .bind(&delivery.receiver)
    .bind(&delivery.alert_id)
    .bind(if delivery.delivered { "delivered" } else { "failed" })
    .bind(i32::try_from(delivery.attempts).unwrap_or(i32::MAX))
    .bind(&delivery.error)
    .bind(signed(delivery.finished))
    .fetch_optional(pool)
    .await?;
    Ok(told.flatten().as_deref().and_then(State::named))
}

/// Which alerts are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The caller's.
    pub tenant: String,
    /// Only alerts in this state.
    pub state: Option<State>,
    /// Only this rule's; empty for all.
    pub rule_id: String,
    /// Labels that must have exactly these values.
    pub labels: BTreeMap<String, String>,
}

/// An alert and what became of its newest notification.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The alert.
    pub alert: Alert,
    /// none, pending, sent, delivered, failed.
    pub delivery: String,
}

/// A page of alerts, the newest start first, behind the place `after` (start and id).
///
/// # Errors
/// Postgres.
pub async fn alerts(
    pool: &PgPool,
    filter: &Filter,
    after: Option<&(u64, String)>,
    limit: i64,
) -> sqlx::Result<Vec<Listed>> {
    let rows = sqlx::query(
        "select alerts.*,
             case when alerts.notification_id is null then 'none'
                  when told.failed > 0 then 'failed'
                  when told.delivered >= coalesce(outbox.receivers, 1) then 'delivered'
                  when outbox.id is not null and outbox.sent_at is null then 'pending'
                  else 'sent' end as delivery
         from alerts
         left join outbox on outbox.id = alerts.notification_id
         left join lateral (
             select count(*) filter (where state = 'failed') as failed,
                    count(*) filter (where state = 'delivered') as delivered
             from deliveries where deliveries.notification_id = alerts.notification_id) told on true
         where tenant = $1 and occurrences > 0
           and ($2 is null or alerts.state = $2)
           and ($3 = '' or rule_id = $3)
           and labels @> $4
           and ($5 is null or (starts_unix_nano, alerts.id) < ($5, $6))
         order by starts_unix_nano desc, alerts.id desc
         limit $7",
    )
    .bind(&filter.tenant)
    .bind(filter.state.map(State::as_str))
    .bind(&filter.rule_id)
    .bind(Json(&filter.labels))
    .bind(after.map(|(starts, _)| signed(*starts)))
    .bind(after.map(|(_, id)| id.as_str()))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok(Listed { alert: read_alert(row)?, delivery: row.try_get("delivery")? })).collect()
}

fn read_alert(row: &PgRow) -> sqlx::Result<Alert> {
    let state: String = row.try_get("state")?;
    let Json(labels) = row.try_get("labels")?;
    let Json(annotations) = row.try_get("annotations")?;
    Ok(Alert {
        id: row.try_get("id")?,
        tenant: row.try_get("tenant")?,
        rule_id: row.try_get("rule_id")?,
        rule_version: unsigned(row, "rule_version")?,
        rule_name: row.try_get("rule_name")?,
        level: row.try_get("level")?,
        condition: row.try_get("condition")?,
        state: State::named(&state).ok_or_else(|| sqlx::Error::Decode(format!("alert state {state}").into()))?,
        labels,
        annotations,
        value: row.try_get("value")?,
        line: row.try_get("line")?,
        resource_id: row.try_get("resource_id")?,
        receivers: row.try_get("receivers")?,
        starts: unsigned(row, "starts_unix_nano")?,
        ends: unsigned(row, "ends_unix_nano")?,
        updated: unsigned(row, "updated_unix_nano")?,
        occurrences: unsigned(row, "occurrences")?,
    })
}

/// Times end in 2262 and counts do not get there; what comes from outside was checked before.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(row: &PgRow, column: &str) -> sqlx::Result<u64> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|error| sqlx::Error::Decode(error.into()))
}
