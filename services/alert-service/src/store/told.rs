//! The ledger of who was told what, the groups that were told, and their notifications.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row as _};

use super::{signed, unsigned};
use crate::policy::route::Group;
use crate::policy::{Told, Word};

/// What each receiver was told last of these alerts.
///
/// # Errors
/// Postgres.
pub async fn load(connection: &mut PgConnection, alerts: &[String]) -> sqlx::Result<BTreeMap<String, Told>> {
    let rows = sqlx::query("select alert_id, receiver, state, notification_id from told where alert_id = any($1)")
        .bind(alerts)
        .fetch_all(connection)
        .await?;
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    for row in &rows {
        let word = Word { state: row.try_get("state")?, notification_id: row.try_get("notification_id")? };
        told.entry(row.try_get("alert_id")?).or_default().insert(row.try_get("receiver")?, word);
    }
    Ok(told)
}

/// One receiver is told of one alert.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// The alert.
    pub alert_id: &'a str,
    /// The receiver.
    pub receiver: &'a str,
    /// The group.
    pub group_id: &'a str,
    /// What it is told.
    pub state: &'a str,
    /// By which notification.
    pub notification_id: &'a str,
}

/// Notes who is told; of several entries for one alert and receiver the last counts.
///
/// # Errors
/// Postgres.
pub async fn save(connection: &mut PgConnection, entries: &[Entry<'_>]) -> sqlx::Result<()> {
    let last: BTreeMap<_, _> = entries.iter().map(|e| ((e.alert_id, e.receiver, e.group_id), e)).collect();
    let column = |of: for<'e> fn(&Entry<'e>) -> &'e str| last.values().map(|entry| of(entry)).collect::<Vec<_>>();
    sqlx::query(
        "insert into told (alert_id, receiver, group_id, state, notification_id)
         select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
         on conflict (alert_id, receiver, group_id) do update
         set state = excluded.state, notification_id = excluded.notification_id, told_at = now()",
    )
    .bind(column(|entry| entry.alert_id))
    .bind(column(|entry| entry.receiver))
    .bind(column(|entry| entry.group_id))
    .bind(column(|entry| entry.state))
    .bind(column(|entry| entry.notification_id))
    .execute(&mut *connection)
    .await?;
    let made: BTreeMap<&str, &Entry<'_>> = entries.iter().map(|entry| (entry.notification_id, entry)).collect();
    let column = |of: for<'e> fn(&Entry<'e>) -> &'e str| made.values().map(|entry| of(entry)).collect::<Vec<_>>();
    sqlx::query(
        "insert into notifications (id, group_id, state) select * from unnest($1::text[], $2::text[], $3::text[])
         on conflict do nothing",
    )
    .bind(column(|entry| entry.notification_id))
    .bind(column(|entry| entry.group_id))
    .bind(column(|entry| entry.state))
    .execute(connection)
    .await
    .map(|_| ())
}

/// Reserves sequences for so many notifications of each group; gives the last of each, and the one that stood before. They begin at the clock, `now` in
/// milliseconds, and never fall behind it: a database that was restored goes on above what receivers have had.
///
/// # Errors
/// Postgres.
pub async fn sequences(
    connection: &mut PgConnection,
    groups: &BTreeMap<&str, (&Group, u64)>,
    now_millis: u64,
) -> sqlx::Result<BTreeMap<String, (u64, u64)>> {
    let column = |of: fn(&Group) -> &str| groups.values().map(|(group, _)| of(group)).collect::<Vec<_>>();
    let rows = sqlx::query(
        "insert into groups (id, tenant, route, key, sequence)
         select id, tenant, route, key, $6 + count
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) made (id, tenant, route, key, count)
         order by id
         on conflict (id) do update
         set previous = groups.sequence,
             sequence = greatest(excluded.sequence, groups.sequence + (excluded.sequence - $6))
         returning id, sequence, previous",
    )
    .bind(column(|group| &group.id))
    .bind(column(|group| &group.tenant))
    .bind(column(|group| &group.route))
    .bind(column(|group| &group.key))
    .bind(groups.values().map(|(_, count)| signed(*count)).collect::<Vec<_>>())
    .bind(signed(now_millis))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, (unsigned(row, "sequence")?, unsigned(row, "previous")?)))).collect()
}
