//! Notifications that came, and a delivery for each of their receivers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use ::store::outbox;
use prost::Message as _;
use proto::alerts::Notification;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::{health, order, signed};
use crate::delivery::{self, State};
use crate::events::{self, Over};

/// A notification as it came.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The notification; it has a group and an alert.
    pub notification: Notification,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// Why a delivery waits that has nowhere to go.
pub const NO_RECEIVER: &str = "there is no receiver of this name; the delivery waits for one";

/// Why a delivery is over that came too late.
pub const SUPERSEDED: &str = "the receiver has had something newer of this group";

/// Why a delivery waits while one of its group's notifications before it is still under way.
pub const AWAITS: &str = "a notification before this one has not come yet";

/// How long, at least, a notification waits for which of those before it; see [`Waiting`](super::claiming::Waiting).
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long.
    pub wait: Duration,
    /// What is older than this is told to nobody, so it is not waited for.
    pub retention: Duration,
}

impl Patience {
    /// The first sequence that may still come: sequences are taken from the clock, in milliseconds.
    fn oldest(self) -> i64 {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        i64::try_from(now.saturating_sub(self.retention).as_millis()).unwrap_or(i64::MAX)
    }
}

/// Makes a delivery for each receiver of each notification; what was there before stays. Gives how many are new. One that
/// comes before another of its group that was made earlier waits for it.
///
/// # Errors
/// Postgres; then none is made.
pub async fn add(pool: &PgPool, batch: &[Incoming], patience: Patience) -> sqlx::Result<u64> {
    let mut transaction = pool.begin().await?;
    let lines: BTreeSet<order::Line> = batch.iter().flat_map(|incoming| lines(&incoming.notification)).collect();
    // Of a group's notifications, each sees those that came before it, whoever they are for.
    let groups = batch.iter().map(|incoming| (String::new(), group(&incoming.notification).to_owned()));
    order::lock(&mut transaction, &lines.iter().cloned().chain(groups).collect()).await?;
    insert_notifications(&mut transaction, batch).await?;
    hold_receivers(&mut transaction, batch).await?;
    let made = insert_deliveries(&mut transaction, batch, patience).await?;
    let mut receivers = release(&mut transaction, batch, patience).await?;
    receivers.extend(order::settle(&mut transaction, &lines).await?);
    let over: Vec<Over> = made.iter().filter(|made| made.state == State::Superseded.as_str()).cloned().collect();
    outbox::put(&mut transaction, &events::messages(&over)).await?;
    // Last, since everything that is sent to these receivers passes by their rows.
    health::look_again(&mut transaction, receivers).await?;
    transaction.commit().await?;
    Ok(u64::try_from(made.len()).unwrap_or(u64::MAX))
}

fn group(notification: &Notification) -> &str {
    notification.group.as_ref().map_or("", |group| group.id.as_str())
}

fn lines(notification: &Notification) -> impl Iterator<Item = order::Line> {
    notification.receivers.iter().map(|receiver| (receiver.clone(), group(notification).to_owned()))
}

async fn insert_notifications(connection: &mut PgConnection, batch: &[Incoming]) -> sqlx::Result<()> {
    let all = || batch.iter().map(|incoming| &incoming.notification);
    sqlx::query(
        "insert into notifications (id, tenant, payload, traceparent, received_unix_nano, group_id, sequence, previous)
         select * from unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[], $6::text[], $7::bigint[],
                              $8::bigint[])
         on conflict do nothing",
    )
    .bind(all().map(|notification| notification.id.as_str()).collect::<Vec<_>>())
    .bind(all().map(|notification| notification.tenant.as_str()).collect::<Vec<_>>())
    .bind(all().map(Notification::encode_to_vec).collect::<Vec<_>>())
    .bind(batch.iter().map(|incoming| incoming.traceparent.as_deref()).collect::<Vec<_>>())
    .bind(all().map(|notification| signed(notification.received_unix_nano)).collect::<Vec<_>>())
    .bind(all().map(group).collect::<Vec<_>>())
    .bind(all().map(|notification| signed(notification.sequence)).collect::<Vec<_>>())
    .bind(all().map(|notification| signed(notification.previous_sequence)).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(|_| ())
}

/// Those that waited for one of `batch` wait for the next that is missing before it, or no more; gives the receivers of these.
async fn release(
    connection: &mut PgConnection,
    batch: &[Incoming],
    patience: Patience,
) -> sqlx::Result<BTreeSet<Uuid>> {
    let all = || batch.iter().map(|incoming| &incoming.notification);
    let receivers: Vec<Option<Uuid>> = sqlx::query_scalar(
        "update deliveries set awaits = came.missing,
             next_attempt_at = case when came.missing is null then now() else next_attempt_at end,
             reason = case when came.missing is null then '' else reason end
         from (select group_id, sequence, missing_before(group_id, sequence, $3) as missing
               from unnest($1::text[], $2::bigint[]) came (group_id, sequence)) came
         where deliveries.group_id = came.group_id and awaits = came.sequence and state = 'pending'
         returning case when awaits is null then receiver_id end",
    )
    .bind(all().map(group).collect::<Vec<_>>())
    .bind(all().map(|notification| signed(notification.sequence)).collect::<Vec<_>>())
    .bind(patience.oldest())
    .fetch_all(connection)
    .await?;
    Ok(receivers.into_iter().flatten().collect())
}

/// None of the receivers is deleted until the transaction ends: a delivery to one that is gone would wait for nobody.
async fn hold_receivers(connection: &mut PgConnection, batch: &[Incoming]) -> sqlx::Result<()> {
    let names = batch.iter().flat_map(|incoming| {
        let told = &incoming.notification;
        told.receivers.iter().map(|name| (told.tenant.as_str(), name.as_str()))
    });
    let (tenants, names): (Vec<&str>, Vec<&str>) = names.collect::<BTreeSet<_>>().into_iter().unzip();
    sqlx::query(
        "select from receivers where (tenant, name) in (select * from unnest($1::text[], $2::text[]))
         order by id for key share",
    )
    .bind(tenants)
    .bind(names)
    .execute(connection)
    .await
    .map(|_| ())
}

/// What a receiver has had something newer of is over at once; what has no receiver waits for one.
async fn insert_deliveries(
    connection: &mut PgConnection,
    batch: &[Incoming],
    patience: Patience,
) -> sqlx::Result<Vec<Over>> {
    let told: Vec<(&Notification, &String)> = batch
        .iter()
        .flat_map(|incoming| incoming.notification.receivers.iter().map(move |name| (&incoming.notification, name)))
        .collect();
    let ids: Vec<String> = told.iter().map(|(notification, name)| delivery::id(&notification.id, name)).collect();
    let first = |of: fn(&proto::alerts::Alert) -> &str| {
        told.iter().map(|(told, _)| told.alerts.first().map_or("", of)).collect::<Vec<_>>()
    };
    let state = |notification: &Notification| crate::body::status(&notification.alerts);
    let rows = sqlx::query(
        "insert into deliveries (id, notification_id, tenant, receiver, receiver_id, group_id, sequence, alert_id,
             rule_name, alert_state, alerts, state, reason, next_attempt_at, awaits, finished_at)
         select told.id, told.notification_id, told.tenant, told.receiver, receivers.id, told.group_id, told.sequence,
             told.alert_id, told.rule_name, told.alert_state, told.alerts,
             case when heard.sequence >= told.sequence then 'superseded' else 'pending' end,
             case when heard.sequence >= told.sequence then $11 when receivers.id is null then $12
                  when awaited.sequence is not null then $13 else '' end,
             case when heard.sequence >= told.sequence or receivers.id is null then null
                  when awaited.sequence is not null then now() + $14 * interval '1 second' else now() end,
             case when heard.sequence >= told.sequence or receivers.id is null then null else awaited.sequence end,
             case when heard.sequence >= told.sequence then clock_timestamp() end
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[],
                     $9::text[], $10::integer[]) with ordinality told (id, notification_id, tenant,
                     receiver, group_id, sequence, alert_id, rule_name, alert_state, alerts, place)
         left join receivers on receivers.tenant = told.tenant and receivers.name = told.receiver
         left join heard on heard.receiver = told.receiver and heard.group_id = told.group_id
         cross join lateral missing_before(told.group_id, told.sequence, greatest($15, heard.sequence)) awaited (sequence)
         order by place
         on conflict do nothing
         returning *, (select received_unix_nano from notifications where notifications.id = notification_id),
             (select traceparent from notifications where notifications.id = notification_id)",
    )
    .bind(&ids)
    .bind(told.iter().map(|(notification, _)| notification.id.as_str()).collect::<Vec<_>>())
    .bind(told.iter().map(|(notification, _)| notification.tenant.as_str()).collect::<Vec<_>>())
    .bind(told.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>())
    .bind(told.iter().map(|(notification, _)| group(notification)).collect::<Vec<_>>())
    .bind(told.iter().map(|(notification, _)| signed(notification.sequence)).collect::<Vec<_>>())
    .bind(first(|alert| &alert.id))
    .bind(first(|alert| &alert.rule_name))
    .bind(told.iter().map(|(notification, _)| state(notification)).collect::<Vec<_>>())
    .bind(told.iter().map(|(told, _)| i32::try_from(told.alerts.len()).unwrap_or(i32::MAX)).collect::<Vec<_>>())
    .bind(SUPERSEDED)
    .bind(NO_RECEIVER)
    .bind(AWAITS)
    .bind(patience.wait.as_secs_f64())
    .bind(patience.oldest())
    .fetch_all(&mut *connection)
    .await?;
    insert_alerts(connection, &told, &ids, &rows).await?;
    rows.iter().map(events::read).collect()
}

/// Which delivery tells which alerts, so that an alert's deliveries are found.
async fn insert_alerts(
    connection: &mut PgConnection,
    told: &[(&Notification, &String)],
    ids: &[String],
    rows: &[PgRow],
) -> sqlx::Result<()> {
    let places: BTreeMap<&str, usize> = ids.iter().enumerate().map(|(place, id)| (id.as_str(), place)).collect();
    let mut pairs: Vec<(&str, i64)> = Vec::new();
    for row in rows {
        let (id, number): (String, i64) = (row.try_get("id")?, row.try_get("number")?);
        let notification = places.get(id.as_str()).and_then(|place| told.get(*place));
        let alerts = notification.map_or(&[][..], |(notification, _)| &notification.alerts);
        pairs.extend(alerts.iter().map(|alert| (alert.id.as_str(), number)));
    }
    let (alerts, numbers): (Vec<&str>, Vec<i64>) = pairs.into_iter().unzip();
    sqlx::query(
        "insert into delivery_alerts (alert_id, number)
         select * from unnest($1::text[], $2::bigint[]) on conflict do nothing",
    )
    .bind(alerts)
    .bind(numbers)
    .execute(connection)
    .await
    .map(|_| ())
}

/// Gives deliveries that wait for a receiver of their name the one that has come; gives how many.
///
/// # Errors
/// Postgres.
pub async fn adopt(pool: &PgPool) -> sqlx::Result<u64> {
    let mut transaction = pool.begin().await?;
    let adopted: Vec<Uuid> = sqlx::query_scalar(
        "update deliveries set receiver_id = receivers.id, next_attempt_at = now(), reason = ''
         from receivers
         where deliveries.state = 'pending' and deliveries.receiver_id is null
           and receivers.tenant = deliveries.tenant and receivers.name = deliveries.receiver
         returning receivers.id",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let count = u64::try_from(adopted.len()).unwrap_or(u64::MAX);
    if count > 0 {
        health::look_again(&mut transaction, adopted.into_iter().collect()).await?;
    }
    transaction.commit().await?;
    Ok(count)
}
