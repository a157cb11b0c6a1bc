//! Writing sightings down.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row as _};

use super::{RESOURCE, Store, changes};
use crate::presence::{Change, Interval, Nanos, Status, nanos};
use crate::resource::{Facts, Resource, Sighting, facts};

/// The tenant among the facts, so that the index of facts is the tenant's. No attribute has a name like it.
pub(super) const TENANT_FACT: &str = "__tenant__";
/// That a description is still so is written down this seldom.
const DESCRIBED_EVERY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

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
    /// The name on metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "registered",
            Self::Different => "described",
            Self::Nothing => "known",
        }
    }

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

/// What is assumed of a resource that is registered.
#[derive(Debug, Clone, Copy)]
pub struct Fresh {
    pub status: Status,
    pub interval: Interval,
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
    /// Writes sightings and announces what they change, all or none. Writing one again changes nothing, and what says nothing
    /// new writes nothing.
    ///
    /// `sightings` must come sorted by tenant and id, so that replicas lock in the same order; `fresh` is what is assumed of
    /// a resource that is seen for the first time.
    pub(crate) async fn write(
        &self,
        sightings: &[Sighting],
        now: Nanos,
        fresh: impl Fn(&Sighting) -> Fresh,
    ) -> Result<Vec<Told>, sqlx::Error> {
        let work = async {
            let mut transaction = self.pools.work.begin().await?;
            let mut known = lock(&mut transaction, sightings).await?;
            let (mut told, mut announced) = (Vec::with_capacity(sightings.len()), Vec::new());
            for sighting in sightings {
                let (what, change) = write(&mut transaction, &mut known, sighting, fresh(sighting), now).await?;
                announced.extend(change);
                told.push(what);
            }
            changes::announce(&mut transaction, &announced).await?;
            transaction.commit().await?;
            Ok(told)
        };
        self.pools.bounded(work).await
    }
}

type Place = (String, String);

fn place(sighting: &Sighting) -> Place {
    (sighting.tenant.clone(), sighting.id.clone())
}

/// What is known about those that were sighted, which stay as they are until the transaction ends.
async fn lock(connection: &mut PgConnection, sightings: &[Sighting]) -> sqlx::Result<HashMap<Place, Known>> {
    let sql = format!(
        "select r.described_at, {RESOURCE} join unnest($1::text[], $2::text[]) as s (tenant, id)
             on s.tenant = r.tenant and s.id = r.id
         order by r.tenant, r.id for update of r"
    );
    let known: Vec<Known> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(sightings.iter().map(|sighting| sighting.tenant.as_str()).collect::<Vec<_>>())
        .bind(sightings.iter().map(|sighting| sighting.id.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(known.into_iter().map(|known| ((known.resource.tenant.clone(), known.resource.id.clone()), known)).collect())
}

async fn write(
    connection: &mut PgConnection,
    known: &mut HashMap<Place, Known>,
    sighting: &Sighting,
    fresh: Fresh,
    now: Nanos,
) -> sqlx::Result<(Told, Option<proto::registry::ResourceChanged>)> {
    loop {
        if let Some(known) = known.get_mut(&place(sighting)) {
            let told = describe(connection, known, sighting).await?;
            let status = known.resource.status.as_str();
            return Ok((told, told.change().map(|change| known.resource.changed(change, Some(status), now))));
        }
        if let Some(resource) = register(connection, sighting, fresh).await? {
            let change = resource.changed(Change::Registered, None, now);
            known.insert(place(sighting), Known { resource, described_at: sighting.seen });
            return Ok((Told::New, Some(change)));
        }
        // Another replica registered it in between.
        known.extend(lock(connection, std::slice::from_ref(sighting)).await?);
    }
}

async fn register(
    connection: &mut PgConnection,
    sighting: &Sighting,
    fresh: Fresh,
) -> Result<Option<Resource>, sqlx::Error> {
    let resource = Resource {
        tenant: sighting.tenant.clone(),
        id: sighting.id.clone(),
        kind: sighting.kind.clone(),
        name: sighting.name().to_owned(),
        labels: sighting.labels.clone(),
        tags: HashMap::new(),
        agent_id: sighting.agent_id.clone(),
        parent_id: sighting.parent_id.clone(),
        status: fresh.status.to_string(),
        first_seen: sighting.seen,
        last_seen: sighting.seen,
    };
    let done = sqlx::query(
        "insert into resources (tenant, id, kind, name, labels, facts, agent_id, parent_id, first_seen, described_at,
                                status, last_seen, report_interval)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $9, $11) on conflict do nothing",
    )
    .bind(&resource.tenant)
    .bind(&resource.id)
    .bind(&resource.kind)
    .bind(&resource.name)
    .bind(Json(&resource.labels))
    .bind(Json(kept_facts(&resource)))
    .bind(&resource.agent_id)
    .bind(&resource.parent_id)
    .bind(resource.first_seen)
    .bind(&resource.status)
    .bind(fresh.interval.nanos())
    .execute(connection)
    .await?;
    Ok((done.rows_affected() == 1).then_some(resource))
}

/// The newest sighting describes a resource; any may show that it was there earlier than was known. When it was last there
/// the heartbeats know.
async fn describe(connection: &mut PgConnection, known: &mut Known, sighting: &Sighting) -> sqlx::Result<Told> {
    let resource = &mut known.resource;
    let newest = sighting.seen > known.described_at;
    let different = resource.labels != sighting.labels
        || resource.agent_id != sighting.agent_id
        || resource.parent_id != sighting.parent_id;
    let told = if newest && different { Told::Different } else { Told::Nothing };
    let is_old = sighting.seen - known.described_at > nanos(DESCRIBED_EVERY);
    if told == Told::Nothing && !is_old && sighting.seen >= resource.first_seen {
        return Ok(told);
    }
    if told == Told::Different {
        resource.name = sighting.name().to_owned();
        resource.labels = sighting.labels.clone();
        resource.agent_id = sighting.agent_id.clone();
        resource.parent_id = sighting.parent_id.clone();
    }
    resource.first_seen = resource.first_seen.min(sighting.seen);
    resource.last_seen = resource.last_seen.max(sighting.seen);
    known.described_at = known.described_at.max(sighting.seen);
    sqlx::query(
        "update resources set name = $3, labels = $4, facts = $5, agent_id = $6, parent_id = $7, first_seen = $8,
                              described_at = $9, last_seen = $10
         where tenant = $1 and id = $2",
    )
    .bind(&resource.tenant)
    .bind(&resource.id)
    .bind(&resource.name)
    .bind(Json(&resource.labels))
    .bind(Json(kept_facts(resource)))
    .bind(&resource.agent_id)
    .bind(&resource.parent_id)
    .bind(resource.first_seen)
    .bind(known.described_at)
    .bind(resource.last_seen)
    .execute(connection)
    .await?;
    Ok(told)
}

fn kept_facts(resource: &Resource) -> Facts {
    let mut facts = facts(&resource.labels, &resource.tags);
    facts.insert(TENANT_FACT.to_owned(), resource.tenant.clone());
    facts
}
