//! Alerts as they are.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::{signed, unsigned};
use crate::alert::{Alert, Place};

/// Keeps everybody else from deciding about these alerts until the transaction ends; gives the time, by the clock of
/// Postgres, which all replicas share. The locks are taken in one order, so two batches never wait for each other.
///
/// # Errors
/// Postgres.
pub async fn lock(connection: &mut PgConnection, ids: &[String]) -> sqlx::Result<u64> {
    sqlx::query(
        "with keys as materialized (select distinct hashtextextended(id, 0) as key from unnest($1::text[]) id order by 1)
         select pg_advisory_xact_lock(key) from keys",
    )
    .bind(ids)
    .execute(&mut *connection)
    .await?;
    let now: i64 = sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000000000)::bigint")
        .fetch_one(connection)
        .await?;
    Ok(u64::try_from(now).unwrap_or_default())
}

/// These alerts, by id.
///
/// # Errors
/// Postgres.
pub async fn load(connection: &mut PgConnection, ids: &[String]) -> sqlx::Result<BTreeMap<String, Alert>> {
    let rows = sqlx::query("select * from alerts where id = any($1)").bind(ids).fetch_all(connection).await?;
    rows.iter().map(|row| read(row).map(|alert| (alert.id.clone(), alert))).collect()
}

/// Every column that this release writes.
const COLUMNS: [&str; 30] = [
    "id",
    "tenant",
    "rule_id",
    "series",
    "rule_version",
    "evaluated_version",
    "kind",
    "rule_name",
    "level",
    "condition",
    "state",
    "ended_reason",
    "ended_by",
    "labels",
    "descriptive",
    "annotations",
    "value",
    "line",
    "resource_id",
    "starts_unix_nano",
    "ends_unix_nano",
    "updated_unix_nano",
    "occurrences",
    "revision",
    "late",
    "transition_id",
    "shard",
    "epoch",
    "decided_order",
    "evaluated_unix_nano",
];

static SAVE: LazyLock<String> = LazyLock::new(|| {
    let columns = COLUMNS.join(", ");
    let changed = COLUMNS.iter().filter(|column| **column != "id");
    let changed: Vec<String> = changed.map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "insert into alerts ({columns}) select {columns} from jsonb_populate_recordset(null::alerts, $1)
         on conflict (id) do update set {}",
        changed.join(", ")
    )
});

/// Writes alerts as they are now, and which of them are on.
///
/// # Errors
/// Postgres.
pub async fn save(connection: &mut PgConnection, alerts: &[&Alert]) -> sqlx::Result<()> {
    let rows: Vec<Value> = alerts.iter().map(|alert| row(alert)).collect();
    sqlx::query(AssertSqlSafe(SAVE.as_str())).bind(Json(rows)).execute(&mut *connection).await?;
    let (on, over): (Vec<&&Alert>, Vec<&&Alert>) = alerts.iter().partition(|alert| alert.is_on());
    let over: Vec<&str> = over.iter().map(|alert| alert.id.as_str()).collect();
    sqlx::query("delete from firing where alert_id = any($1)").bind(over).execute(&mut *connection).await?;
    // Rounds of its shard that were heard before cannot name it.
    sqlx::query(
        "insert into firing (alert_id, shard, decided_order, confirmed_epoch, confirmed_round)
         select id, alert.shard, decided_order, coalesce(newest.epoch, 0), coalesce(newest.round, 0)
         from unnest($1::text[], $2::text[], $3::bigint[]) alert (id, shard, decided_order)
         left join lateral (select epoch, round from rounds where rounds.shard = alert.shard
                            order by epoch desc, round desc limit 1) newest on true
         on conflict (alert_id) do update set shard = excluded.shard, decided_order = excluded.decided_order,
             confirmed_epoch = excluded.confirmed_epoch, confirmed_round = excluded.confirmed_round",
    )
    .bind(on.iter().map(|alert| alert.id.as_str()).collect::<Vec<_>>())
    .bind(on.iter().map(|alert| alert.place.shard.as_str()).collect::<Vec<_>>())
    .bind(on.iter().map(|alert| signed(alert.place.order)).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(|_| ())
}

fn row(alert: &Alert) -> Value {
    json!({
        "id": alert.id,
        "tenant": alert.tenant,
        "rule_id": alert.rule_id,
        "series": alert.series,
        "rule_version": alert.rule_version,
        "evaluated_version": alert.evaluated_version,
        "kind": alert.kind,
        "rule_name": alert.rule_name,
        "level": alert.level,
        "condition": alert.condition,
        "state": alert.state,
        "ended_reason": alert.ended_reason,
        "ended_by": alert.ended_by,
        "labels": alert.labels,
        "descriptive": alert.descriptive,
        "annotations": alert.annotations,
        // JSON has no NaN; Postgres reads the word.
        "value": alert.value.to_string(),
        "line": alert.line,
        "resource_id": alert.resource_id,
        "starts_unix_nano": alert.starts,
        "ends_unix_nano": alert.ends,
        "updated_unix_nano": alert.updated,
        "occurrences": alert.occurrences,
        "revision": alert.revision,
        "late": alert.late,
        "transition_id": alert.place.transition_id,
        "shard": alert.place.shard,
        "epoch": alert.place.epoch,
        "decided_order": alert.place.order,
        "evaluated_unix_nano": alert.place.evaluated,
    })
}

pub(super) fn read(row: &PgRow) -> sqlx::Result<Alert> {
    let Json(labels) = row.try_get("labels")?;
    let Json(descriptive) = row.try_get("descriptive")?;
    let Json(annotations) = row.try_get("annotations")?;
    Ok(Alert {
        id: row.try_get("id")?,
        tenant: row.try_get("tenant")?,
        rule_id: row.try_get("rule_id")?,
        series: row.try_get("series")?,
        rule_version: unsigned(row, "rule_version")?,
        evaluated_version: unsigned(row, "evaluated_version")?,
        kind: row.try_get("kind")?,
        rule_name: row.try_get("rule_name")?,
        level: row.try_get("level")?,
        condition: row.try_get("condition")?,
        state: row.try_get("state")?,
        ended_reason: row.try_get("ended_reason")?,
        ended_by: row.try_get("ended_by")?,
        labels,
        descriptive,
        annotations,
        value: row.try_get("value")?,
        line: row.try_get("line")?,
        resource_id: row.try_get("resource_id")?,
        starts: unsigned(row, "starts_unix_nano")?,
        ends: unsigned(row, "ends_unix_nano")?,
        updated: unsigned(row, "updated_unix_nano")?,
        occurrences: unsigned(row, "occurrences")?,
        revision: unsigned(row, "revision")?,
        late: row.try_get("late")?,
        place: Place {
            transition_id: row.try_get("transition_id")?,
            shard: row.try_get("shard")?,
            epoch: unsigned(row, "epoch")?,
            order: unsigned(row, "decided_order")?,
            evaluated: unsigned(row, "evaluated_unix_nano")?,
        },
    })
}
