//! Writing sightings down.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row as _};

use super::{Store, changes, status};
use crate::presence::{Change, Nanos, Status};
use crate::resource::{Resource, Sighting};

/// What a sighting told us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A resource that was never seen before.
    New,
    /// Something new about one that was.
    Different,
    /// Nothing.
    Nothing,
}

impl Told {
    /// The change that is announced.
    #[must_use]
    pub fn change(self) -> Option<Change> {
        match self {
            Self::New => Some(Change::Registered),
            Self::Different => Some(Change::LabelsChanged),
            Self::Nothing => None,
        }
    }
}

/// What is known about a resource before a sighting is written down.
struct Known {
    resource: Resource,
    described_at: Nanos,
}

impl FromRow<'_, PgRow> for Known {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { resource: Resource::from_row(row)?, described_at: row.try_get("described_at")? })
    }
}

impl Store {
    /// Writes sightings and announces what they change, all or none. Writing one again changes nothing.
    ///
    /// `sightings` must come sorted by tenant and id, so that replicas lock in the same order; `fresh` is the status of
    /// a resource whose first sighting was made at a time.
    pub(crate) async fn write(
        &self,
        sightings: &[Sighting],
        now: Nanos,
        fresh: impl Fn(Nanos) -> Status,
    ) -> Result<Vec<Told>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let (mut told, mut announced) = (Vec::with_capacity(sightings.len()), Vec::new());
        for sighting in sightings {
            let (what, resource) = write(&mut transaction, sighting, fresh(sighting.seen)).await?;
            if let Some(change) = what.change() {
                let before = (what == Told::Different).then_some(resource.status);
                announced.push(resource.changed(change, before, now));
            }
            told.push(what);
        }
        changes::announce(&mut transaction, &announced).await?;
        transaction.commit().await?;
        Ok(told)
    }
}

async fn write(
    connection: &mut PgConnection,
    sighting: &Sighting,
    fresh: Status,
) -> Result<(Told, Resource), sqlx::Error> {
    loop {
        if let Some(known) = lock(connection, sighting).await? {
            return describe(connection, known, sighting).await;
        }
        if let Some(resource) = register(connection, sighting, fresh).await? {
            return Ok((Told::New, resource));
        }
        // Another replica registered it in between.
    }
}

async fn lock(connection: &mut PgConnection, sighting: &Sighting) -> Result<Option<Known>, sqlx::Error> {
    sqlx::query_as(
        "select r.tenant, r.id, r.kind, r.name, r.labels, r.tags, r.agent_id, r.parent_id, r.first_seen, r.described_at,
                p.status, p.last_seen
         from resources r join presence p on p.tenant = r.tenant and p.id = r.id
         where r.tenant = $1 and r.id = $2 for update",
    )
    .bind(&sighting.tenant)
    .bind(&sighting.id)
    .fetch_optional(connection)
    .await
}

async fn register(
    connection: &mut PgConnection,
    sighting: &Sighting,
    status: Status,
) -> Result<Option<Resource>, sqlx::Error> {
    let row = sqlx::query(
        "with registered as (
             insert into resources (tenant, id, kind, name, labels, agent_id, parent_id, first_seen, described_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $8) on conflict do nothing returning tenant, id)
         insert into presence (tenant, id, status, last_seen) select tenant, id, $9, $8 from registered returning status",
    )
    .bind(&sighting.tenant)
    .bind(&sighting.id)
    .bind(sighting.kind.as_str())
    .bind(sighting.name())
    .bind(Json(&sighting.labels))
    .bind(&sighting.agent_id)
    .bind(&sighting.parent_id)
    .bind(sighting.seen)
    .bind(status.as_str())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Resource {
        tenant: sighting.tenant.clone(),
        id: sighting.id.clone(),
        kind: sighting.kind.to_string(),
        name: sighting.name().to_owned(),
        labels: sighting.labels.clone(),
        tags: HashMap::new(),
        agent_id: sighting.agent_id.clone(),
        parent_id: sighting.parent_id.clone(),
        status: self::status(&row, "status")?,
        first_seen: sighting.seen,
        last_seen: sighting.seen,
    }))
}

/// The newest sighting describes a resource; any may show that it was there earlier or later than was known.
async fn describe(
    connection: &mut PgConnection,
    known: Known,
    sighting: &Sighting,
) -> Result<(Told, Resource), sqlx::Error> {
    let Known { mut resource, described_at } = known;
    let newest = sighting.seen > described_at;
    let different = resource.labels != sighting.labels
        || resource.agent_id != sighting.agent_id
        || resource.parent_id != sighting.parent_id;
    let told = if newest && different { Told::Different } else { Told::Nothing };
    if told == Told::Different {
        resource.name = sighting.name().to_owned();
        resource.labels = sighting.labels.clone();
        resource.agent_id = sighting.agent_id.clone();
        resource.parent_id = sighting.parent_id.clone();
    }
    resource.first_seen = resource.first_seen.min(sighting.seen);
    resource.last_seen = resource.last_seen.max(sighting.seen);
    sqlx::query(
        "with described as (
             update resources set name = $3, labels = $4, agent_id = $5, parent_id = $6, first_seen = $7,
                                  described_at = greatest(described_at, $8)
             where tenant = $1 and id = $2)
         update presence set last_seen = $9 where tenant = $1 and id = $2",
    )
    .bind(&resource.tenant)
    .bind(&resource.id)
    .bind(&resource.name)
    .bind(Json(&resource.labels))
    .bind(&resource.agent_id)
    .bind(&resource.parent_id)
    .bind(resource.first_seen)
    .bind(sighting.seen)
    .bind(resource.last_seen)
    .execute(connection)
    .await?;
    Ok((told, resource))
}
