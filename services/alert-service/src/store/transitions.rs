//! Transitions that were taken, and those that wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};

use crate::alert::Outcome;
use crate::transition::Transition;

/// Which of these were taken.
///
/// # Errors
/// Postgres.
pub async fn taken(connection: &mut PgConnection, ids: &[&str]) -> sqlx::Result<BTreeSet<String>> {
    let taken = sqlx::query_scalar("select id from applied_transitions where id = any($1)");
    Ok(taken.bind(ids).fetch_all(connection).await?.into_iter().collect())
}

/// How long ago was first looked whether the one before a transition has come, and how often since.
#[derive(Debug, Clone, Copy)]
pub struct Waited {
    /// How long ago.
    pub since: Duration,
    /// How often, before now.
    pub looks: u32,
}

/// What those of `ids` have waited that wait.
///
/// # Errors
/// Postgres.
pub async fn waiting(connection: &mut PgConnection, ids: &[&str]) -> sqlx::Result<BTreeMap<String, Waited>> {
    let rows = sqlx::query(
        "select id, extract(epoch from clock_timestamp() - since)::double precision as age, looks
         from awaiting where id = any($1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let read = |row: &PgRow| {
        let since = Duration::try_from_secs_f64(row.try_get("age")?).unwrap_or_default();
        let looks = u32::try_from(row.try_get::<i32, _>("looks")?).unwrap_or_default();
        Ok((row.try_get("id")?, Waited { since, looks }))
    };
    rows.iter().map(read).collect()
}

/// Notes that transitions wait, for which, and that it was looked for.
///
/// # Errors
/// Postgres.
pub async fn wait(connection: &mut PgConnection, waiting: &[(&str, &str)]) -> sqlx::Result<()> {
    let (ids, predecessors): (Vec<&str>, Vec<&str>) = waiting.iter().copied().unzip();
    sqlx::query(
        "insert into awaiting (id, predecessor, looks) select *, 1 from unnest($1::text[], $2::text[])
         on conflict (id) do update set looks = awaiting.looks + 1",
    )
    .bind(ids)
    .bind(predecessors)
    .execute(connection)
    .await
    .map(|_| ())
}

/// A transition that was taken, and what it did.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The transition.
    pub transition: &'a Transition,
    /// Its place in the stream.
    pub sequence: u64,
    /// The alert.
    pub alert_id: String,
    /// What it did.
    pub outcome: Outcome,
    /// The notification it caused, if any.
    pub notification_id: Option<String>,
}

/// Keeps why alerts are what they are, and that these transitions were taken.
///
/// # Errors
/// Postgres.
pub async fn record(connection: &mut PgConnection, records: &[Record<'_>]) -> sqlx::Result<()> {
    let ids: Vec<&str> = records.iter().map(|record| record.transition.wire.id.as_str()).collect();
    for statement in [
        "insert into applied_transitions (id) select * from unnest($1::text[]) on conflict do nothing",
        "delete from awaiting where id = any($1)",
    ] {
        sqlx::query(statement).bind(&ids).execute(&mut *connection).await?;
    }
    let rows: Vec<Value> = records.iter().map(row).collect();
    // An id that was pruned from `applied_transitions` alone cannot be: it is kept longer.
    sqlx::query(
        "insert into transitions (id, alert_id, tenant, rule_id, rule_version, evaluated_version, series, state, value,
             line, condition, since_unix_nano, sample_unix_nano, received_unix_nano, evaluated_unix_nano, late, shard,
             epoch, decided_order, stream_sequence, outcome, notification_id)
         select id, alert_id, tenant, rule_id, rule_version, evaluated_version, series, state, value,
             line, condition, since_unix_nano, sample_unix_nano, received_unix_nano, evaluated_unix_nano, late, shard,
             epoch, decided_order, stream_sequence, outcome, notification_id
         from jsonb_populate_recordset(null::transitions, $1)
         on conflict do nothing",
    )
    .bind(Json(rows))
    .execute(connection)
    .await
    .map(|_| ())
}

fn row(record: &Record<'_>) -> Value {
    let wire = &record.transition.wire;
    json!({
        "id": wire.id,
        "alert_id": record.alert_id,
        "tenant": wire.tenant,
        "rule_id": wire.rule_id,
        "rule_version": wire.rule_version,
        "evaluated_version": wire.evaluated_version,
        "series": wire.series,
        "state": wire.state,
        "value": wire.value.to_string(),
        "line": wire.line,
        "condition": wire.condition,
        "since_unix_nano": wire.since_unix_nano,
        "sample_unix_nano": wire.sample_unix_nano,
        "received_unix_nano": wire.received_unix_nano,
        "evaluated_unix_nano": wire.evaluated_unix_nano,
        "late": wire.late,
        "shard": wire.shard,
        "epoch": wire.epoch,
        "decided_order": wire.order,
        "stream_sequence": record.sequence,
        "outcome": record.outcome.as_str(),
        "notification_id": record.notification_id,
    })
}
