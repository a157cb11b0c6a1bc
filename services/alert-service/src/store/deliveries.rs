//! What became of notifications.

use std::collections::BTreeMap;

use proto::alerts::ReceiverNews;
use sqlx::{PgExecutor, Row as _};

use super::{signed, unsigned};

/// What the dispatcher said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The notification.
    pub notification_id: String,
    /// The receiver's name.
    pub receiver: String,
    /// How it ended: delivered, failed, superseded, or what a newer release knows.
    pub state: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed, or empty.
    pub error: String,
    /// When it was over.
    pub finished: u64,
}

/// News that nobody had heard before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct New {
    /// The notification.
    pub notification_id: String,
    /// The receiver's name.
    pub receiver: String,
    /// What was told; empty where that is not known any more.
    pub told: String,
}

/// Records deliveries; gives those that are new. A delivery that was given up may be taken up again, so the last counts.
///
/// # Errors
/// Postgres.
pub async fn save(store: impl PgExecutor<'_>, deliveries: &[&Delivery]) -> sqlx::Result<Vec<New>> {
    let last: BTreeMap<_, _> =
        deliveries.iter().map(|d| ((d.notification_id.as_str(), d.receiver.as_str()), *d)).collect();
    let column = |of: fn(&Delivery) -> &str| last.values().map(|delivery| of(delivery)).collect::<Vec<_>>();
    let rows = sqlx::query(
        "insert into deliveries (notification_id, receiver, state, attempts, error, finished_unix_nano)
         select * from unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::bigint[])
         on conflict (notification_id, receiver) do update
         set state = excluded.state, attempts = excluded.attempts, error = excluded.error,
             finished_unix_nano = excluded.finished_unix_nano
         where deliveries.state <> excluded.state and deliveries.finished_unix_nano <= excluded.finished_unix_nano
         returning notification_id, receiver,
             (select notifications.state from notifications where notifications.id = notification_id) as told",
    )
    .bind(column(|delivery| &delivery.notification_id))
    .bind(column(|delivery| &delivery.receiver))
    .bind(column(|delivery| &delivery.state))
    .bind(last.values().map(|d| i32::try_from(d.attempts).unwrap_or(i32::MAX)).collect::<Vec<_>>())
    .bind(column(|delivery| &delivery.error))
    .bind(last.values().map(|delivery| signed(delivery.finished)).collect::<Vec<_>>())
    .fetch_all(store)
    .await?;
    rows.iter()
        .map(|row| {
            let told: Option<String> = row.try_get("told")?;
            Ok(New {
                notification_id: row.try_get("notification_id")?,
                receiver: row.try_get("receiver")?,
                told: told.unwrap_or_default(),
            })
        })
        .collect()
}

/// What the receivers of an alert have heard.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News {
    /// By receiver.
    pub receivers: Vec<ReceiverNews>,
    /// Whether a notification still waits for the broker.
    pub waits: bool,
}

/// What became of the newest notifications of these alerts, by alert.
///
/// # Errors
/// Postgres.
pub async fn news(store: impl PgExecutor<'_>, alerts: &[&str]) -> sqlx::Result<BTreeMap<String, News>> {
    let rows = sqlx::query(
        "select told.alert_id, told.receiver, coalesce(deliveries.state, 'pending') as state,
             coalesce(deliveries.error, '') as error, coalesce(deliveries.finished_unix_nano, 0) as finished,
             outgoing.id is not null and outgoing.dead_at is null as waits, outgoing.dead_at is not null as dead
         from told
         left join deliveries on deliveries.notification_id = told.notification_id
             and deliveries.receiver = told.receiver
         left join outgoing on outgoing.id = told.notification_id
         where told.alert_id = any($1) order by told.alert_id, told.receiver",
    )
    .bind(alerts)
    .fetch_all(store)
    .await?;
    let mut news: BTreeMap<String, News> = BTreeMap::new();
    for row in &rows {
        let of_alert = news.entry(row.try_get("alert_id")?).or_default();
        of_alert.waits |= row.try_get::<bool, _>("waits")?;
        let is_dead: bool = row.try_get("dead")?;
        of_alert.receivers.push(ReceiverNews {
            receiver: row.try_get("receiver")?,
            state: if is_dead { "failed".to_owned() } else { row.try_get("state")? },
            error: if is_dead { "the broker never takes it".to_owned() } else { row.try_get("error")? },
            finished_unix_nano: unsigned(row, "finished")?,
        });
    }
    Ok(news)
}
