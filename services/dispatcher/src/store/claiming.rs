//! What is due and may be sent now, in turns by tenant and receiver.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::seal::Kept;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::{count, health};
use crate::share::{Candidate, Places};

/// Which process holds claims, and for how long.
#[derive(Debug, Clone)]
pub struct Claimer {
    /// The process.
    pub owner: Uuid,
    /// How long it is believed to be alive after each word of it.
    pub lease: Duration,
}

/// An attempt that is about to begin.
#[derive(Clone)]
pub struct Claimed {
    /// The delivery's id, which is the webhook's.
    pub id: String,
    /// The attempt's number, from 1.
    pub number: u32,
    /// Whose it is.
    pub tenant: String,
    /// The receiver.
    pub receiver_id: Uuid,
    /// Its name.
    pub receiver: String,
    /// Whether its last attempt succeeded.
    pub proven: bool,
    /// The group that is told.
    pub group_id: String,
    /// Where it is.
    pub url: String,
    /// Sign what it gets: the present secret, and the one before while that counts.
    pub secrets: Vec<Kept>,
    /// The encoded `Notification`.
    pub payload: Vec<u8>,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// How long the delivery has been there.
    pub age: Duration,
}

/// What a look for due deliveries gave.
pub struct Claims {
    /// What may be sent now.
    pub claimed: Vec<Claimed>,
    /// Somebody was at a receiver that has something to do: it is worth looking again very soon.
    pub passed_over: bool,
}

/// How often is looked whether what comes before a delivery has come.
const LOOK: Duration = Duration::from_millis(250);

/// How long a delivery waits for a notification before it that a killed dispatcher may have held. The first half passes by the
/// clock, as it does for releases that know no other way. In the second it is looked for so many times while it could have
/// come: what nobody could look for, or what could not come, is not late.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// How many times.
    pub looks: i32,
    /// Whether the broker could bring it.
    pub is_possible: Arc<AtomicBool>,
}

impl Waiting {
    /// The second half of `time`.
    #[must_use]
    pub fn of(time: Duration, is_possible: Arc<AtomicBool>) -> Self {
        let looks = (time / 2).as_millis().div_ceil(LOOK.as_millis());
        Self { looks: i32::try_from(looks).unwrap_or(i32::MAX), is_possible }
    }
}

/// Receivers looked at in one claim.
const RECEIVERS: i64 = 256;

/// Claims what is due and writes the attempts down. `full` are receivers that have no place in this process; `share` says
/// how many places each of the others gets.
///
/// # Errors
/// Postgres.
pub async fn claim(
    pool: &PgPool,
    claimer: &Claimer,
    waiting: &Waiting,
    full: &[Uuid],
    share: impl FnOnce(&[Candidate]) -> Vec<Places>,
) -> sqlx::Result<Claims> {
    let mut transaction = pool.begin().await?;
    let (candidates, passed_over) = candidates(&mut transaction, full).await?;
    if candidates.is_empty() {
        return Ok(Claims { claimed: Vec::new(), passed_over });
    }
    let claimed = take(&mut transaction, claimer, waiting, &share(&candidates)).await?;
    let receivers: Vec<Uuid> = candidates.iter().map(|candidate| candidate.receiver_id).collect();
    health::look_at_locked(&mut transaction, &receivers).await?;
    transaction.commit().await?;
    Ok(Claims { claimed, passed_over })
}

/// Receivers with something to do: of each tenant first the one that has waited longest, then the second, and so on. Nobody
/// waits for one that somebody else is at; the word says whether there was such a one.
async fn candidates(connection: &mut PgConnection, full: &[Uuid]) -> sqlx::Result<(Vec<Candidate>, bool)> {
    let rows = sqlx::query(
        "with due as materialized (
             select receiver_id as id, due_at as since, row_number() over (partition by tenant order by due_at) as turn
             from receiver_state
             where due_at <= now() and receiver_id <> all($1) and (held_until is null or held_until <= now())
             order by turn, due_at limit $2
         ), mine as materialized (
             select receiver_id, tenant, failures, proven from receiver_state
             where receiver_id in (select id from due) and due_at <= now() and (held_until is null or held_until <= now())
             for no key update skip locked)
         select mine.* from due left join mine on mine.receiver_id = due.id order by turn, since",
    )
    .bind(full)
    .bind(RECEIVERS)
    .fetch_all(connection)
    .await?;
    let mut candidates = Vec::new();
    for row in &rows {
        if let Some(receiver_id) = row.try_get("receiver_id")? {
            candidates.push(Candidate {
                receiver_id,
                tenant: row.try_get("tenant")?,
                failures: count(row, "failures")?,
                proven: row.try_get("proven")?,
            });
        }
    }
    let passed_over = candidates.len() < rows.len();
    Ok((candidates, passed_over))
}

/// A receiver that is down is probed by one attempt at a time, of all processes together.
async fn take(
    connection: &mut PgConnection,
    claimer: &Claimer,
    waiting: &Waiting,
    places: &[Places],
) -> sqlx::Result<Vec<Claimed>> {
    let rows = sqlx::query(
        "with due as (
             select due.id, due.waits
             from unnest($1::uuid[], $2::integer[], $3::boolean[]) place (receiver_id, count, is_probe)
             cross join lateral (
                 select id, awaits is not null and looks < $6 as waits from deliveries
                 where receiver_id = place.receiver_id and is_next and next_attempt_at <= now()
                   and (claim is null or claimed_until < now())
                   and not (place.is_probe and exists (
                       select from deliveries running
                       where running.receiver_id = place.receiver_id and running.claim is not null
                         and running.claimed_until >= now()))
                 order by next_attempt_at limit place.count for no key update skip locked) due
         ), looked as (
             update deliveries set looks = looks + $7, next_attempt_at = now() + $8 * interval '1 millisecond'
             from due where deliveries.id = due.id and due.waits
         ), claimed as (
             update deliveries set claim = $4, claimed_until = now() + $5 * interval '1 second', attempts = attempts + 1,
                 awaits = null
             from due where deliveries.id = due.id and not due.waits
             returning deliveries.id, attempts, tenant, receiver_id, receiver, group_id, notification_id,
                 extract(epoch from now() - created_at)::double precision as age
         ), begun as (
             insert into attempts (delivery_id, number, started_at)
             select id, attempts, clock_timestamp() from claimed
         )
         select claimed.*, receiver_state.proven, receivers.url, receivers.secret, receivers.secret_sealed,
             case when receivers.old_secret_until > now() then receivers.old_secret end as old_secret,
             receivers.old_secret_sealed, notifications.payload, notifications.traceparent
         from claimed
         join receivers on receivers.id = claimed.receiver_id
         join receiver_state on receiver_state.receiver_id = claimed.receiver_id
         join notifications on notifications.id = claimed.notification_id",
    )
    .bind(places.iter().map(|place| place.receiver_id).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.count).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.is_probe).collect::<Vec<_>>())
    .bind(claimer.owner)
    .bind(claimer.lease.as_secs_f64())
    .bind(waiting.looks)
    .bind(i32::from(waiting.is_possible.load(Ordering::Relaxed)))
    .bind(LOOK.as_secs_f64() * 1_000.0)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &PgRow) -> sqlx::Result<Claimed> {
    let age: f64 = row.try_get("age")?;
    let mut secrets = vec![Kept { bytes: row.try_get("secret")?, sealed: row.try_get("secret_sealed")? }];
    if let Some(bytes) = row.try_get("old_secret")? {
        let sealed: Option<bool> = row.try_get("old_secret_sealed")?;
        secrets.push(Kept { bytes, sealed: sealed.unwrap_or_default() });
    }
    Ok(Claimed {
        id: row.try_get("id")?,
        number: count(row, "attempts")?,
        tenant: row.try_get("tenant")?,
        receiver_id: row.try_get("receiver_id")?,
        receiver: row.try_get("receiver")?,
        proven: row.try_get("proven")?,
        group_id: row.try_get("group_id")?,
        url: row.try_get("url")?,
        secrets,
        payload: row.try_get("payload")?,
        traceparent: row.try_get("traceparent")?,
        age: Duration::try_from_secs_f64(age).unwrap_or_default(),
    })
}

/// Says that this process is alive and still at these; gives those of them that nobody else has taken over, and for how long
/// they are held.
///
/// # Errors
/// Postgres; the claims then run out.
pub async fn renew(pool: &PgPool, claimer: &Claimer, ids: &[String]) -> sqlx::Result<Vec<(String, Duration)>> {
    let rows: Vec<(String, f64)> = sqlx::query_as(
        // Others lock rows in orders of their own: what one of them is at stays as it is until the next time.
        "with held as (
             select id, extract(epoch from claimed_until - now())::double precision as left_over from deliveries
             where id = any($1) and claim = $2 and state = 'pending'
         ), renewed as (
             update deliveries set claimed_until = now() + $3 * interval '1 second'
             where id in (select id from deliveries where id = any($1) and claim = $2 and state = 'pending'
                          for no key update skip locked)
             returning id)
         select id, case when renewed.id is null then left_over else $3 end from held left join renewed using (id)",
    )
    .bind(ids)
    .bind(claimer.owner)
    .bind(claimer.lease.as_secs_f64())
    .fetch_all(pool)
    .await?;
    let held = |(id, seconds)| (id, Duration::try_from_secs_f64(seconds).unwrap_or_default());
    Ok(rows.into_iter().map(held).collect())
}
