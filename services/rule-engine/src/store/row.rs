//! A version of a rule as a row.

use std::collections::HashMap;

use proto::rules::rule_document::Subject;
use proto::rules::{LogCondition, Rule, RuleDocument};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

pub(super) const COLUMNS: &str = "rule_id, version, tenant, name, level, selector, metric, contains, condition, for_millis, \
     hold_millis, labels, annotations, receivers, disabled, created_at, updated_at";

/// A count, which the database keeps with a sign.
pub(super) fn number(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    let number: i64 = row.try_get(column)?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// The rule as callers see it.
pub(super) fn wire(row: &PgRow) -> Result<Rule, sqlx::Error> {
    let id: Uuid = row.try_get("rule_id")?;
    Ok(Rule {
        id: id.to_string(),
        version: number(row, "version")?,
        document: Some(document(row)?),
        created_unix_nano: unix_nano(row.try_get("created_at")?),
        updated_unix_nano: unix_nano(row.try_get("updated_at")?),
    })
}

fn document(row: &PgRow) -> Result<RuleDocument, sqlx::Error> {
    let metric: Option<String> = row.try_get("metric")?;
    let contains: Option<String> = row.try_get("contains")?;
    let labels: Json<HashMap<String, String>> = row.try_get("labels")?;
    let annotations: Json<HashMap<String, String>> = row.try_get("annotations")?;
    let log = contains.map(|contains| Subject::Log(LogCondition { contains }));
    Ok(RuleDocument {
        name: row.try_get("name")?,
        level: row.try_get("level")?,
        r#match: row.try_get("selector")?,
        subject: metric.map(Subject::Metric).or(log),
        condition: row.try_get("condition")?,
        for_millis: number(row, "for_millis")?,
        hold_millis: number(row, "hold_millis")?,
        labels: labels.0,
        annotations: annotations.0,
        receivers: row.try_get("receivers")?,
        disabled: row.try_get("disabled")?,
    })
}

/// Writes the version that is in force from `revision` on; a new rule is created now.
pub(super) async fn insert(
    connection: &mut PgConnection,
    tenant: &str,
    id: Uuid,
    version: u64,
    document: &RuleDocument,
    created_unix_nano: Option<u64>,
    revision: i64,
) -> Result<(), sqlx::Error> {
    let (metric, contains) = match &document.subject {
        Some(Subject::Metric(metric)) => (Some(metric), None),
        Some(Subject::Log(log)) => (None, Some(&log.contains)),
        None => (None, None),
    };
    let created = created_unix_nano.map(time_of);
    sqlx::query(
        "insert into rule_versions (rule_id, version, tenant, name, level, selector, metric, contains, condition,
             for_millis, hold_millis, labels, annotations, receivers, disabled, created_at, updated_at, since_revision)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, coalesce($16, now()), now(), $17)",
    )
    .bind(id)
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .bind(tenant)
    .bind(&document.name)
    .bind(&document.level)
    .bind(&document.r#match)
    .bind(metric)
    .bind(contains)
    .bind(&document.condition)
    .bind(i64::try_from(document.for_millis).unwrap_or(i64::MAX))
    .bind(i64::try_from(document.hold_millis).unwrap_or(i64::MAX))
    .bind(Json(&document.labels))
    .bind(Json(&document.annotations))
    .bind(&document.receivers)
    .bind(document.disabled)
    .bind(created)
    .bind(revision)
    .execute(connection)
    .await
    .map(|_| ())
}

fn unix_nano(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos()).unwrap_or(0)
}

fn time_of(unix_nano: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(unix_nano.into()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
