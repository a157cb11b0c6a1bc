//! Writing the ledger: notifications, their deliveries, every attempt. Reading it is `ledger`'s.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use proto::alerts::Notification;
use settings::Secret;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::{count, nanos, signed};
use crate::delivery::{self, Next, Outcome, State};

/// A notification as it came.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The notification; it has an alert.
    pub notification: Notification,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// Makes a delivery for each receiver of each notification; what was there before stays. Gives how many are new.
///
/// # Errors
/// Postgres; then none is made.
pub async fn add(pool: &PgPool, batch: &[Incoming]) -> sqlx::Result<u64> {
    let mut transaction = pool.begin().await?;
    let mut added = 0;
    for incoming in batch {
        added += add_one(&mut transaction, incoming).await?;
    }
    transaction.commit().await?;
    Ok(added)
}

async fn add_one(connection: &mut PgConnection, incoming: &Incoming) -> sqlx::Result<u64> {
    let notification = &incoming.notification;
    sqlx::query(
        "insert into notifications (id, tenant, payload, traceparent, received_unix_nano) values ($1, $2, $3, $4, $5)
         on conflict do nothing",
    )
    .bind(&notification.id)
    .bind(&notification.tenant)
    .bind(notification.encode_to_vec())
    .bind(&incoming.traceparent)
    .bind(signed(notification.received_unix_nano))
    .execute(&mut *connection)
    .await?;
    let alert = notification.alerts.first().cloned().unwrap_or_default();
    let ids: Vec<String> = notification.receivers.iter().map(|name| delivery::id(&notification.id, name)).collect();
    let done = sqlx::query(
        "insert into deliveries (id, notification_id, tenant, receiver, receiver_id, alert_id, rule_name, alert_state,
             alert_updated_unix_nano, state, error, next_attempt_at, finished_at)
         select told.id, $1, $2, told.name, receivers.id, $3, $4, $5, $6,
             case when receivers.id is null then 'failed' else 'pending' end,
             case when receivers.id is null then 'there is no receiver of this name' else '' end,
             case when receivers.id is null then null else now() end,
             case when receivers.id is null then now() end
         from unnest($7::text[], $8::text[]) told (id, name)
         left join receivers on receivers.tenant = $2 and receivers.name = told.name
         on conflict do nothing",
    )
    .bind(&notification.id)
    .bind(&notification.tenant)
    .bind(&alert.id)
    .bind(&alert.rule_name)
    .bind(&alert.state)
    .bind(signed(alert.updated_unix_nano))
    .bind(&ids)
    .bind(&notification.receivers)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Which process holds claims, for how long, and how much it may hold.
#[derive(Debug, Clone)]
pub struct Claimer {
    /// The process.
    pub owner: Uuid,
    /// How long it is believed to be alive after each word of it.
    pub lease: Duration,
    /// Deliveries to one receiver at the same time.
    pub per_receiver: u16,
}

/// An attempt that is about to begin.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The delivery's id, which is the webhook's.
    pub id: String,
    /// The attempt's number, from 1.
    pub number: u32,
    /// The receiver.
    pub receiver_id: Uuid,
    /// Its name.
    pub receiver: String,
    /// Where it is.
    pub url: String,
    /// Signs what it gets.
    pub secret: Secret,
    /// The encoded `Notification`.
    pub payload: Vec<u8>,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// How long the delivery has been there.
    pub age: Duration,
}

/// Claims what is due and writes the attempts down. `busy` says how many attempts run for which receiver in this process.
///
/// # Errors
/// Postgres.
pub async fn claim(
    pool: &PgPool,
    claimer: &Claimer,
    busy: &BTreeMap<Uuid, i32>,
    limit: i64,
) -> sqlx::Result<Vec<Claimed>> {
    let (receivers, counts): (Vec<Uuid>, Vec<i32>) = busy.iter().map(|(id, count)| (*id, *count)).unzip();
    let rows = sqlx::query(
        "with due as (
             select due.id
             from (select receivers.id, $1 - coalesce(busy.count, 0) as places
                   from receivers left join unnest($2::uuid[], $3::integer[]) busy (id, count) on busy.id = receivers.id
                  ) room
             cross join lateral (
                 select id from deliveries
                 where receiver_id = room.id and state = 'pending' and next_attempt_at <= now()
                   and (claimed_until is null or claimed_until < now())
                   and not exists (
                       select from deliveries earlier
                       where earlier.receiver_id = deliveries.receiver_id and earlier.alert_id = deliveries.alert_id
                         and earlier.state = 'pending'
                         and (earlier.alert_updated_unix_nano, earlier.number)
                             < (deliveries.alert_updated_unix_nano, deliveries.number))
                 order by next_attempt_at limit greatest(room.places, 0) for update skip locked) due
             limit $4
         ), claimed as (
             update deliveries set claim = $5, claimed_until = now() + $6 * interval '1 second', attempts = attempts + 1
             from due where deliveries.id = due.id
             returning deliveries.id, attempts, receiver_id, receiver, notification_id,
                 extract(epoch from now() - created_at)::double precision as age
         ), begun as (
             insert into attempts (delivery_id, number, started_at)
             select id, attempts, clock_timestamp() from claimed
         )
         select claimed.id, claimed.attempts, claimed.receiver_id, claimed.receiver, claimed.age, receivers.url,
             receivers.secret, notifications.payload, notifications.traceparent
         from claimed
         join receivers on receivers.id = claimed.receiver_id
         join notifications on notifications.id = claimed.notification_id",
    )
    .bind(i32::from(claimer.per_receiver))
    .bind(&receivers)
    .bind(&counts)
    .bind(limit)
    .bind(claimer.owner)
    .bind(claimer.lease.as_secs_f64())
    .fetch_all(pool)
    .await?;
    rows.iter().map(read_claimed).collect()
}

fn read_claimed(row: &PgRow) -> sqlx::Result<Claimed> {
    let age: f64 = row.try_get("age")?;
    Ok(Claimed {
        id: row.try_get("id")?,
        number: count(row, "attempts")?,
        receiver_id: row.try_get("receiver_id")?,
        receiver: row.try_get("receiver")?,
        url: row.try_get("url")?,
        secret: Secret::from(row.try_get::<String, _>("secret")?),
        payload: row.try_get("payload")?,
        traceparent: row.try_get("traceparent")?,
        age: Duration::try_from_secs_f64(age).unwrap_or_default(),
    })
}

/// Says that this process is alive and still at it.
///
/// # Errors
/// Postgres; the claims then run out.
pub async fn renew(pool: &PgPool, claimer: &Claimer, ids: &[String]) -> sqlx::Result<()> {
    sqlx::query(
        "update deliveries set claimed_until = now() + $3 * interval '1 second'
         where id = any($1) and claim = $2 and state = 'pending'",
    )
    .bind(ids)
    .bind(claimer.owner)
    .bind(claimer.lease.as_secs_f64())
    .execute(pool)
    .await
    .map(|_| ())
}

/// An attempt that is over.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The delivery.
    pub id: String,
    /// The attempt.
    pub number: u32,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// What comes of it.
    pub next: Next,
}

/// Writes down how an attempt ended and what comes of it. The delivery changes only if no other process has taken it
/// over meanwhile; a success counts even then.
///
/// # Errors
/// Postgres.
pub async fn finish(pool: &PgPool, claimer: &Claimer, finished: &Finished) -> sqlx::Result<()> {
    let (state, error, delay) = match &finished.next {
        Next::Delivered => (State::Delivered, String::new(), None),
        Next::Failed(error) => (State::Failed, error.clone(), None),
        Next::Retry(delay) => (State::Pending, finished.outcome.error(), Some(delay.as_secs_f64())),
    };
    sqlx::query(
        "with attempt as (
             update attempts set duration_millis = $3, http_status = $4, error = $5
             where delivery_id = $1 and number = $2
         )
         update deliveries set state = $6, error = $7, claim = null, claimed_until = null,
             next_attempt_at = now() + $8 * interval '1 second',
             finished_at = case when $6 = 'pending' then null else clock_timestamp() end
         where id = $1 and state = 'pending' and (claim = $9 and attempts = $2 or $6 = 'delivered')",
    )
    .bind(&finished.id)
    .bind(i32::try_from(finished.number).unwrap_or(i32::MAX))
    .bind(i32::try_from(finished.took.as_millis()).unwrap_or(i32::MAX))
    .bind(i32::from(finished.outcome.status()))
    .bind(finished.outcome.error())
    .bind(state.as_str())
    .bind(error)
    .bind(delay)
    .bind(claimer.owner)
    .execute(pool)
    .await
    .map(|_| ())
}

/// How many deliveries are pending.
///
/// # Errors
/// Postgres.
pub async fn count_pending(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from deliveries where state = 'pending'").fetch_one(pool).await
}

/// A delivery that is over, and of which nobody has been told.
#[derive(Debug, Clone)]
pub struct Unreported {
    /// The delivery's id.
    pub id: String,
    /// Its tenant.
    pub tenant: String,
    /// The notification.
    pub notification_id: String,
    /// The alert.
    pub alert_id: String,
    /// The receiver's name.
    pub receiver: String,
    /// delivered or failed.
    pub state: String,
    /// Attempts made.
    pub attempts: u32,
    /// Why it failed.
    pub error: String,
    /// When the gateway took the deciding sample in, Unix nanoseconds.
    pub received: u64,
    /// When it was over, Unix nanoseconds.
    pub finished: u64,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// Takes deliveries to report, which nobody else then sees until the transaction ends.
///
/// # Errors
/// Postgres.
pub async fn unreported(connection: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<Unreported>> {
    let rows = sqlx::query(
        "select deliveries.*, notifications.received_unix_nano, notifications.traceparent
         from deliveries join notifications on notifications.id = deliveries.notification_id
         where state <> 'pending' and reported_at is null
         order by finished_at limit $1 for update of deliveries skip locked",
    )
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read_unreported).collect()
}

fn read_unreported(row: &PgRow) -> sqlx::Result<Unreported> {
    let received: i64 = row.try_get("received_unix_nano")?;
    Ok(Unreported {
        id: row.try_get("id")?,
        tenant: row.try_get("tenant")?,
        notification_id: row.try_get("notification_id")?,
        alert_id: row.try_get("alert_id")?,
        receiver: row.try_get("receiver")?,
        state: row.try_get("state")?,
        attempts: count(row, "attempts")?,
        error: row.try_get("error")?,
        received: u64::try_from(received).unwrap_or_default(),
        finished: nanos(row, "finished_at")?,
        traceparent: row.try_get("traceparent")?,
    })
}

/// Marks deliveries that the broker has the events of.
///
/// # Errors
/// Postgres.
pub async fn mark_reported(connection: &mut PgConnection, ids: &[String]) -> sqlx::Result<()> {
    sqlx::query("update deliveries set reported_at = clock_timestamp() where id = any($1)")
        .bind(ids)
        .execute(connection)
        .await
        .map(|_| ())
}
