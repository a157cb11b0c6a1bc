//! What the sweeper reads and writes, under its lease.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row as _};
use store::Lease;

use super::{RESOURCE, Store, changes, status};
use crate::heartbeats::Heartbeat;
use crate::presence::{Change, Nanos, Status, Thresholds, nanos};
use crate::resource::Resource;

/// `last_seen` is written this seldom while nothing else changes, or every heartbeat would be a row's new version.
/// Readers see it late by so much; judging does not, since it reads Redis.
const SAVE_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// A resource whose record may have to change.
#[derive(Debug)]
pub struct Judged {
    pub tenant: String,
    pub id: String,
    pub before: Status,
    /// The latest sign of life that anybody knows of.
    pub seen: Nanos,
}

/// What is to be written about it.
pub struct Verdict {
    pub judged: Judged,
    pub after: Status,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Unfenced {
    /// Another replica judges now.
    #[error("another replica holds the lease")]
    Lost,
    /// Postgres.
    #[error("cannot judge")]
    Store(#[from] sqlx::Error),
}

impl FromRow<'_, PgRow> for Judged {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            tenant: row.try_get("tenant")?,
            id: row.try_get("id")?,
            before: status(row, "status")?,
            seen: row.try_get("seen")?,
        })
    }
}

impl Store {
    /// Tenants that have resources, found by hopping through the index rather than by reading all of it.
    pub(crate) async fn tenants(&self) -> Result<Vec<String>, sqlx::Error> {
        sqlx::query_scalar(
            "with recursive hop as (
                 (select tenant from presence order by tenant limit 1)
                 union all
                 select (select p.tenant from presence p where p.tenant > hop.tenant order by p.tenant limit 1)
                 from hop where hop.tenant is not null)
             select tenant from hop where tenant is not null",
        )
        .fetch_all(&self.pool)
        .await
    }

    pub(crate) async fn count(&self) -> Result<HashMap<Status, i64>, sqlx::Error> {
        let rows =
            sqlx::query("select status, count(*) as count from presence group by status").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((status(row, "status")?, row.try_get("count")?))).collect()
    }

    /// Judges everything by `beats`, writes what `believe` makes of it, and announces what changed; all or nothing, and
    /// nothing if the lease is not held any more.
    pub(crate) async fn judge(
        &self,
        lease: &Lease,
        beats: &[Heartbeat],
        thresholds: Thresholds,
        now: Nanos,
        believe: impl Fn(&Judged) -> Status,
    ) -> Result<Vec<Change>, Unfenced> {
        let mut transaction = self.pool.begin().await?;
        fence(&mut transaction, lease).await?;
        let judged = candidates(&mut transaction, beats, thresholds, now).await?;
        let verdicts: Vec<Verdict> =
            judged.into_iter().map(|judged| Verdict { after: believe(&judged), judged }).collect();
        save(&mut transaction, &verdicts).await?;
        let announced = announce(&mut transaction, &verdicts, now).await?;
        transaction.commit().await?;
        Ok(announced)
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

async fn candidates(
    connection: &mut PgConnection,
    beats: &[Heartbeat],
    thresholds: Thresholds,
    now: Nanos,
) -> Result<Vec<Judged>, sqlx::Error> {
    let save_every = nanos(SAVE_EVERY.min(thresholds.idle_after / 2));
    // A sign of life from the future counts as one of now, lest a wrong clock keep a resource online for hours after.
    let seen: Vec<Nanos> = beats.iter().map(|beat| beat.seen.min(now)).collect();
    sqlx::query_as(
        "select p.tenant, p.id, p.status, s.seen
         from presence p
         left join unnest($1::text[], $2::text[], $3::bigint[]) as b (tenant, id, seen)
             on b.tenant = p.tenant and b.id = p.id
         cross join lateral (select greatest(p.last_seen, b.seen) as seen) s
         where (p.status <> 'offline' or b.seen > p.last_seen)
           and (s.seen - p.last_seen >= $4
                or p.status <> case when s.seen >= $5 then 'online' when s.seen >= $6 then 'idle' else 'offline' end)
         order by p.tenant, p.id
         for update of p",
    )
    .bind(beats.iter().map(|beat| beat.tenant.as_str()).collect::<Vec<_>>())
    .bind(beats.iter().map(|beat| beat.id.as_str()).collect::<Vec<_>>())
    .bind(seen)
    .bind(save_every)
    .bind(thresholds.idle_from(now))
    .bind(thresholds.offline_from(now))
    .fetch_all(connection)
    .await
}

async fn save(connection: &mut PgConnection, verdicts: &[Verdict]) -> Result<(), sqlx::Error> {
    if verdicts.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update presence p set status = v.status, last_seen = v.seen
         from unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) as v (tenant, id, status, seen)
         where p.tenant = v.tenant and p.id = v.id",
    )
    .bind(verdicts.iter().map(|verdict| verdict.judged.tenant.as_str()).collect::<Vec<_>>())
    .bind(verdicts.iter().map(|verdict| verdict.judged.id.as_str()).collect::<Vec<_>>())
    .bind(verdicts.iter().map(|verdict| verdict.after.as_str()).collect::<Vec<_>>())
    .bind(verdicts.iter().map(|verdict| verdict.judged.seen).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn announce(connection: &mut PgConnection, verdicts: &[Verdict], now: Nanos) -> Result<Vec<Change>, sqlx::Error> {
    let changed: HashMap<(&str, &str), (Change, Status)> = verdicts
        .iter()
        .filter_map(|Verdict { judged, after }| {
            let change = Change::between(judged.before, *after)?;
            Some(((judged.tenant.as_str(), judged.id.as_str()), (change, judged.before)))
        })
        .collect();
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "select {RESOURCE} join unnest($1::text[], $2::text[]) as c (tenant, id) on c.tenant = r.tenant and c.id = r.id"
    );
    let resources: Vec<Resource> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(changed.keys().map(|(tenant, _)| *tenant).collect::<Vec<_>>())
        .bind(changed.keys().map(|(_, id)| *id).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
    let events: Vec<_> = resources
        .iter()
        .filter_map(|resource| {
            let (change, before) = changed.get(&(resource.tenant.as_str(), resource.id.as_str()))?;
            Some(resource.changed(*change, Some(*before), now))
        })
        .collect();
    changes::announce(connection, &events).await?;
    Ok(changed.into_values().map(|(change, _)| change).collect())
}
