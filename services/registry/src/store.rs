//! Every SQL statement of the registry.

mod changes;
mod forgetting;
mod judging;
mod listing;
mod sightings;

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row as _};
use store::{Lease, Migrations, Pools};

use crate::presence::Status;
use crate::resource::{Facts, Resource};

pub(crate) use forgetting::Retention;
pub use judging::{Settled, Unfenced};
pub use listing::Narrow;
pub use sightings::{Fresh, Told};

/// Brings the schema `registry` up to date.
pub const MIGRATIONS: Migrations = store::migrations!("../../../migrations/registry"; 1 "create_resources");

const RESOURCE: &str = "r.tenant, r.id, r.kind, r.name, r.labels, r.tags, r.agent_id, r.parent_id, r.first_seen, r.status, \
                        r.last_seen from resources r";

/// The registry's tables.
#[derive(Clone)]
pub struct Store {
    pools: Pools,
}

/// A resource and what selectors read of it.
pub(crate) struct Listed {
    pub(crate) resource: Resource,
    pub(crate) facts: Facts,
}

impl Store {
    /// Over the tables of the pools' schema.
    #[must_use]
    pub fn new(pools: Pools) -> Self {
        Self { pools }
    }

    /// Does `work` on Postgres, but no longer than a transaction may take.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, Unfenced>>) -> Result<T, Unfenced> {
        let work = async {
            match work.await {
                Err(Unfenced::Store(error)) => Err(error),
                done => Ok(done),
            }
        };
        self.pools.bounded(work).await?
    }

    /// Tenants that have resources, found by hopping through the index rather than by reading all of it.
    pub(crate) async fn tenants(&self) -> sqlx::Result<Vec<Arc<str>>> {
        let query = sqlx::query_scalar(
            "with recursive hop as (
                 (select tenant from resources order by tenant limit 1)
                 union all
                 select (select r.tenant from resources r where r.tenant > hop.tenant order by r.tenant limit 1)
                 from hop where hop.tenant is not null)
             select tenant from hop where tenant is not null",
        );
        let tenants: Vec<String> = self.pools.bounded(query.fetch_all(&self.pools.work)).await?;
        Ok(tenants.into_iter().map(Arc::from).collect())
    }

    /// How many there are of each status; those of a newer release count as none of ours.
    pub(crate) async fn count(&self) -> sqlx::Result<HashMap<Status, i64>> {
        let sql = "select status, count(*) as count from resources group by status";
        let rows = self.pools.bounded(sqlx::query(sql).fetch_all(&self.pools.work)).await?;
        let count = |row: &PgRow| {
            let status = Status::named(row.try_get("status")?);
            status.map(|status| row.try_get("count").map(|count| (status, count))).transpose()
        };
        rows.iter().filter_map(|row| count(row).transpose()).collect()
    }
}

/// Whoever wants to take the lease over waits until this transaction is over.
async fn fence(connection: &mut PgConnection, lease: &Lease) -> Result<(), Unfenced> {
    let held: Option<i64> =
        sqlx::query_scalar("select epoch from leases where name = $1 and owner = $2 and epoch = $3 for share")
            .bind(&lease.name)
            .bind(lease.owner)
            .bind(lease.epoch)
            .fetch_optional(connection)
            .await?;
    held.map(|_| ()).ok_or(Unfenced::Lost)
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
            status: row.try_get("status")?,
            first_seen: row.try_get("first_seen")?,
            last_seen: row.try_get("last_seen")?,
        })
    }
}

impl FromRow<'_, PgRow> for Listed {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { resource: Resource::from_row(row)?, facts: row.try_get::<Json<Facts>, _>("facts")?.0 })
    }
}
