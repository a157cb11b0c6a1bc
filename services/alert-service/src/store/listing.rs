//! Pages of alerts. State and rule have an index that gives a page in order, whatever the others hold; labels have one that
//! finds what has them, of all tenants together.

use std::collections::BTreeMap;

use sqlx::types::Json;
use sqlx::{PgPool, Postgres, QueryBuilder};

use super::{alerts, signed};
use crate::alert::Alert;

/// Which alerts are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The caller's.
    pub tenant: String,
    /// Only alerts in this state; empty for all.
    pub state: String,
    /// Only this rule's; empty for all.
    pub rule_id: String,
    /// Labels that must have exactly these values.
    pub labels: BTreeMap<String, String>,
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
) -> sqlx::Result<Vec<Alert>> {
    let mut query = query("", filter, after, limit);
    let rows = query.build().fetch_all(pool).await?;
    rows.iter().map(alerts::read).collect()
}

/// How Postgres would read that page.
///
/// # Errors
/// Postgres.
pub async fn plan(pool: &PgPool, filter: &Filter, after: Option<&(u64, String)>) -> sqlx::Result<String> {
    let mut query = query("explain ", filter, after, 100);
    let lines: Vec<String> = query.build_query_scalar().fetch_all(pool).await?;
    Ok(lines.join("\n"))
}

/// Only what was asked stands in the statement: one for all questions would be planned for none of them.
fn query<'a>(
    before: &'static str,
    filter: &'a Filter,
    after: Option<&'a (u64, String)>,
    limit: i64,
) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(before);
    query.push("select * from alerts where occurrences > 0 and tenant = ").push_bind(filter.tenant.clone());
    if !filter.state.is_empty() {
        query.push(" and state = ").push_bind(filter.state.clone());
    }
    if !filter.rule_id.is_empty() {
        query.push(" and rule_id = ").push_bind(filter.rule_id.clone());
    }
    if !filter.labels.is_empty() {
        query.push(" and (descriptive || labels) @> ").push_bind(Json(filter.labels.clone()));
    }
    if let Some((starts, id)) = after {
        query.push(" and (starts_unix_nano, id) < (").push_bind(signed(*starts)).push(", ").push_bind(id.clone());
        query.push(")");
    }
    query.push(" order by starts_unix_nano desc, id desc limit ").push_bind(limit);
    query
}
