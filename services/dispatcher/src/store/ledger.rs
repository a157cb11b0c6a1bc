//! Reading the ledger for people. Each way to ask has an index that gives its page in order.

use std::collections::BTreeMap;

use proto::dispatch::{Attempt, Delivery};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Postgres, QueryBuilder, Row as _};

use super::{count, nanos, unsigned};
use crate::delivery::State;

/// Which deliveries are asked for; empty fields ask for all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The caller's.
    pub tenant: String,
    /// Of one alert.
    pub alert_id: String,
    /// To one receiver.
    pub receiver: String,
    /// In one state.
    pub state: Option<State>,
}

/// A page of deliveries with their attempts, the newest first, below the row `before`. Gives each with its row.
///
/// # Errors
/// Postgres.
pub async fn list(pool: &PgPool, filter: &Filter, before: i64, limit: i64) -> sqlx::Result<Vec<(i64, Delivery)>> {
    let rows = query("", filter, before, limit).build().fetch_all(pool).await?;
    let ids = rows.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<Vec<String>>>()?;
    let mut attempts = attempts(pool, &ids).await?;
    rows.iter()
        .map(|row| {
            let id: String = row.try_get("id")?;
            let attempts = attempts.remove(&id).unwrap_or_default();
            Ok((row.try_get("number")?, read_delivery(row, attempts)?))
        })
        .collect()
}

/// How Postgres would read that page.
///
/// # Errors
/// Postgres.
pub async fn plan(pool: &PgPool, filter: &Filter, before: i64) -> sqlx::Result<String> {
    let lines: Vec<String> = query("explain ", filter, before, 100).build_query_scalar().fetch_all(pool).await?;
    Ok(lines.join("\n"))
}

/// Only what was asked stands in the statement: one for all questions would be planned for none of them.
fn query(begin: &'static str, filter: &Filter, before: i64, limit: i64) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(begin);
    if filter.alert_id.is_empty() {
        query.push("select deliveries.* from deliveries where deliveries.number < ").push_bind(before);
        query.push(" and tenant = ").push_bind(filter.tenant.clone());
    } else {
        query.push(
            "select deliveries.* from delivery_alerts told join deliveries using (number) where told.alert_id = ",
        );
        query.push_bind(filter.alert_id.clone()).push(" and told.number < ").push_bind(before);
        query.push(" and tenant = ").push_bind(filter.tenant.clone());
    }
    if !filter.receiver.is_empty() {
        query.push(" and receiver = ").push_bind(filter.receiver.clone());
    }
    if let Some(state) = filter.state {
        query.push(" and state = ").push_bind(state.as_str());
    }
    let number = if filter.alert_id.is_empty() { "deliveries.number" } else { "told.number" };
    query.push(" order by ").push(number).push(" desc limit ").push_bind(limit);
    query
}

fn read_delivery(row: &PgRow, attempts: Vec<Attempt>) -> sqlx::Result<Delivery> {
    let state: String = row.try_get("state")?;
    let next = if state == State::Pending.as_str() { nanos(row, "next_attempt_at")? } else { 0 };
    Ok(Delivery {
        id: row.try_get("id")?,
        notification_id: row.try_get("notification_id")?,
        alert_id: row.try_get("alert_id")?,
        rule_name: row.try_get("rule_name")?,
        alert_state: row.try_get("alert_state")?,
        receiver: row.try_get("receiver")?,
        state,
        attempts,
        created_unix_nano: nanos(row, "created_at")?,
        finished_unix_nano: nanos(row, "finished_at")?,
        next_attempt_unix_nano: next,
        group_id: row.try_get("group_id")?,
        sequence: unsigned(row, "sequence")?,
        alerts: count(row, "alerts")?,
        reason: row.try_get("reason")?,
    })
}

async fn attempts(pool: &PgPool, ids: &[String]) -> sqlx::Result<BTreeMap<String, Vec<Attempt>>> {
    let rows = sqlx::query(
        "select attempts.*, duration_millis is null as is_open,
             attempts.number < deliveries.attempts or deliveries.claimed_until is null
                 or deliveries.claimed_until < now() as is_over
         from attempts join deliveries on deliveries.id = attempts.delivery_id
         where delivery_id = any($1) order by delivery_id, attempts.number",
    )
    .bind(ids)
    .fetch_all(pool)
    .await?;
    let mut attempts: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
    for row in &rows {
        let (is_open, is_over): (bool, bool) = (row.try_get("is_open")?, row.try_get("is_over")?);
        let error = match (is_open, is_over) {
            (true, true) => "cut off: the dispatcher ended before an answer came".to_owned(),
            (true, false) => "under way".to_owned(),
            (false, _) => row.try_get("error")?,
        };
        let duration: Option<i32> = row.try_get("duration_millis")?;
        attempts.entry(row.try_get("delivery_id")?).or_default().push(Attempt {
            number: count(row, "number")?,
            started_unix_nano: nanos(row, "started_at")?,
            duration_millis: duration.and_then(|millis| u32::try_from(millis).ok()).unwrap_or_default(),
            http_status: count(row, "http_status")?,
            error,
        });
    }
    Ok(attempts)
}
