//! What the API reads.

use authn::Scope;
use sqlx::QueryBuilder;
use sqlx::postgres::Postgres;
use store::{fault, search_fault};

use super::{Listed, RESOURCE, Store};
use crate::resource::Facts;

/// What Postgres can decide alone, by an index.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Narrow {
    pub id: Option<String>,
    pub kind: Option<String>,
    pub name: Option<String>,
    pub status: Option<String>,
    pub agent_id: Option<String>,
    pub parent_id: Option<String>,
    /// Labels and tags that must be so.
    pub facts: Facts,
}

impl Store {
    /// Resources of `scope`'s tenant after the id `after`, in the order of their ids. The selectors are the caller's to ask.
    pub(crate) async fn list(
        &self,
        scope: &Scope,
        narrow: &Narrow,
        after: &str,
        limit: i64,
    ) -> fault::Result<Vec<Listed>> {
        let mut query = list_query(scope.tenant(), narrow, after, limit);
        query.build_query_as().persistent(false).fetch_all(&self.pools.api).await.map_err(search_fault)
    }

    /// The resource, if it is in `scope`.
    pub(crate) async fn get(&self, scope: &Scope, id: &str) -> fault::Result<Option<Listed>> {
        let sql = format!("select r.facts, {RESOURCE} where r.tenant = $1 and r.id = $2");
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(scope.tenant()).bind(id);
        let found: Option<Listed> = query.fetch_optional(&self.pools.api).await.map_err(fault)?;
        let in_scope = |listed: &Listed| scope.selector().matches(|name| listed.resource.label(&listed.facts, name));
        Ok(found.filter(in_scope))
    }
}

/// Only the conditions that there are: the planner must see which they are and with what values.
fn list_query(tenant: &str, narrow: &Narrow, after: &str, limit: i64) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(format!("select r.facts, {RESOURCE} where r.tenant = "));
    query.push_bind(tenant.to_owned()).push(" and r.id > ").push_bind(after.to_owned());
    for (column, value) in [
        ("id", &narrow.id),
        ("kind", &narrow.kind),
        ("name", &narrow.name),
        ("status", &narrow.status),
        ("agent_id", &narrow.agent_id),
        ("parent_id", &narrow.parent_id),
    ] {
        if let Some(value) = value {
            query.push(format_args!(" and r.{column} = ")).push_bind(value.clone());
        }
    }
    if !narrow.facts.is_empty() {
        let mut facts = narrow.facts.clone();
        facts.insert(super::sightings::TENANT_FACT.to_owned(), tenant.to_owned());
        query.push(" and r.facts @> ").push_bind(sqlx::types::Json(facts));
    }
    query.push(" order by r.id limit ").push_bind(limit);
    query
}

#[cfg(test)]
mod tests;
