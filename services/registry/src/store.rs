//! Every SQL statement of the registry.

mod changes;
mod judging;
mod sightings;

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};
use store::{Migrations, Pool, fault};

use crate::presence::Status;
use crate::resource::Resource;

pub use changes::Pending;
pub(crate) use changes::published;
pub use judging::{Judged, Unfenced, Verdict};
pub use sightings::Told;

/// Brings the schema `registry` up to date.
pub const MIGRATIONS: Migrations = store::migrations!("../../../migrations/registry"; 1 "create_resources");

const RESOURCE: &str = "r.tenant, r.id, r.kind, r.name, r.labels, r.tags, r.agent_id, r.parent_id, r.first_seen, p.status, \
                        p.last_seen from resources r join presence p on p.tenant = r.tenant and p.id = r.id";

/// The registry's tables.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
}

/// What a list is narrowed by before it leaves Postgres.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Narrow {
    pub kind: Option<String>,
    pub name: Option<String>,
    pub status: Option<String>,
    pub id: Option<String>,
}

impl Store {
    /// Over the tables of `pool`'s schema.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Resources of `tenant` after the id `after`, in the order of their ids.
    pub(crate) async fn list(
        &self,
        tenant: &str,
        narrow: &Narrow,
        after: &str,
        limit: i64,
    ) -> fault::Result<Vec<Resource>> {
        let sql = format!(
            "select {RESOURCE}
             where r.tenant = $1 and r.id > $2 and ($3::text is null or r.kind = $3) and ($4::text is null or r.name = $4)
               and ($5::text is null or p.status = $5) and ($6::text is null or r.id = $6)
             order by r.id limit $7"
        );
        sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(tenant)
            .bind(after)
            .bind(&narrow.kind)
            .bind(&narrow.name)
            .bind(&narrow.status)
            .bind(&narrow.id)
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)
    }

    pub(crate) async fn get(&self, tenant: &str, id: &str) -> fault::Result<Option<Resource>> {
        let sql = format!("select {RESOURCE} where r.tenant = $1 and r.id = $2");
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(tenant).bind(id).fetch_optional(&self.pool).await.map_err(fault)
    }
}

impl FromRow<'_, PgRow> for Resource {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            tenant: row.try_get("tenant")?,
            id: row.try_get("id")?,
            kind: row.try_get("kind")?,
            name: row.try_get("name")?,
            labels: row.try_get::<Json<HashMap<_, _>>, _>("labels")?.0,
            tags: row.try_get::<Json<HashMap<_, _>>, _>("tags")?.0,
            agent_id: row.try_get("agent_id")?,
            parent_id: row.try_get("parent_id")?,
            status: status(row, "status")?,
            first_seen: row.try_get("first_seen")?,
            last_seen: row.try_get("last_seen")?,
        })
    }
}

fn status(row: &PgRow, column: &str) -> Result<Status, sqlx::Error> {
    row.try_get::<String, _>(column)?.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
