//! What the sweeper reads and writes, under its lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use store::{Lease, LeaseError};
use uuid::Uuid;

use super::{RESOURCE, Store, changes, fence};
use crate::presence::{Change, Interval, Nanos, Status};
use crate::resource::Resource;
use crate::roster::{Key, Known, Verdict};

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

impl From<LeaseError> for Unfenced {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Lost => Self::Lost,
            LeaseError::Store(error) => Self::Store(error),
        }
    }
}

/// What became of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was written, and this is what happened.
    Changed(Change),
    /// It was so already.
    Same,
    /// The resource is gone, or has a status that only a newer release knows.
    NotOurs,
}

impl Store {
    /// Takes the right to judge, if it is free.
    pub(crate) async fn acquire(&self, name: &str, owner: Uuid, ttl: Duration) -> sqlx::Result<Option<Lease>> {
        self.pools.bounded(Lease::acquire(&self.pools.work, name, owner, ttl)).await
    }

    /// Keeps it.
    pub(crate) async fn renew(&self, lease: &Lease) -> Result<(), Unfenced> {
        self.bounded(async { Ok(lease.renew(&self.pools.work).await?) }).await
    }

    /// Gives it back, so that whoever comes next need not wait; if this fails, it ends by itself.
    pub(crate) async fn release(&self, lease: Lease) {
        let _ = self.pools.bounded(lease.release(&self.pools.work)).await;
    }

    /// Everybody who is not offline, one after another into `each`.
    pub(crate) async fn present(&self, mut each: impl FnMut(Key, Known)) -> sqlx::Result<()> {
        let sql = "select tenant, id, status, last_seen, report_interval from resources where status <> 'offline'";
        let work = async {
            let mut rows = sqlx::query(sql).fetch(&self.pools.work);
            let mut tenant: Arc<str> = Arc::from("");
            while let Some(row) = rows.try_next().await? {
                if let Some((key, known)) = known(&row, &mut tenant)? {
                    each(key, known);
                }
            }
            Ok(())
        };
        self.pools.bounded(work).await
    }

    /// What is known of `keys`, as far as there are such resources with a status that we judge.
    pub(crate) async fn known(&self, keys: &[Key]) -> sqlx::Result<Vec<(Key, Known)>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query(
            "select r.tenant, r.id, r.status, r.last_seen, r.report_interval from resources r
             join unnest($1::text[], $2::text[]) as k (tenant, id) on k.tenant = r.tenant and k.id = r.id",
        )
        .bind(keys.iter().map(|key| &*key.tenant).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| &*key.id).collect::<Vec<_>>());
        let rows = self.pools.bounded(query.fetch_all(&self.pools.work)).await?;
        let mut tenant: Arc<str> = Arc::from("");
        rows.iter().filter_map(|row| known(row, &mut tenant).transpose()).collect()
    }

    /// Writes verdicts and announces what they change; all or nothing, and nothing if the lease is not held any more. One
    /// answer for each verdict.
    pub(crate) async fn judge(
        &self,
        lease: &Lease,
        verdicts: &[Verdict],
        now: Nanos,
    ) -> Result<Vec<Settled>, Unfenced> {
        let work = async {
            let mut transaction = self.pools.work.begin().await?;
            fence(&mut transaction, lease).await?;
            let mut rows = lock(&mut transaction, verdicts).await?;
            let (mut settled, mut announced) = (Vec::with_capacity(verdicts.len()), Vec::new());
            for verdict in verdicts {
                let row = rows.get_mut(&verdict.key);
                let (outcome, event) = row.map_or((Settled::NotOurs, None), |row| settle(row, verdict, now));
                announced.extend(event);
                settled.push(outcome);
            }
            save(&mut transaction, verdicts, &settled).await?;
            changes::announce(&mut transaction, &announced).await?;
            transaction.commit().await?;
            Ok(settled)
        };
        self.bounded(Box::pin(work)).await
    }

    /// Writes down how often resources report.
    pub(crate) async fn learn(&self, learned: &[(Key, Interval)]) -> sqlx::Result<()> {
        if learned.is_empty() {
            return Ok(());
        }
        let query = sqlx::query(
            "update resources r set report_interval = l.report_interval
             from unnest($1::text[], $2::text[], $3::bigint[]) as l (tenant, id, report_interval)
             where r.tenant = l.tenant and r.id = l.id",
        )
        .bind(learned.iter().map(|(key, _)| &*key.tenant).collect::<Vec<_>>())
        .bind(learned.iter().map(|(key, _)| &*key.id).collect::<Vec<_>>())
        .bind(learned.iter().map(|(_, interval)| interval.nanos()).collect::<Vec<_>>());
        self.pools.bounded(query.execute(&self.pools.work)).await.map(|_| ())
    }
}

/// `tenant` is the one of the row before, so that neighbours share it.
fn known(row: &PgRow, tenant: &mut Arc<str>) -> sqlx::Result<Option<(Key, Known)>> {
    let name: &str = row.try_get("tenant")?;
    if **tenant != *name {
        *tenant = name.into();
    }
    let Some(status) = Status::named(row.try_get("status")?) else { return Ok(None) };
    let key = Key { tenant: Arc::clone(tenant), id: row.try_get::<&str, _>("id")?.into() };
    let interval = Interval::of(row.try_get("report_interval")?);
    Ok(Some((key, Known { status, heard: row.try_get("last_seen")?, interval })))
}

async fn lock(connection: &mut PgConnection, verdicts: &[Verdict]) -> sqlx::Result<HashMap<Key, Resource>> {
    let sql = format!(
        "select {RESOURCE} join unnest($1::text[], $2::text[]) as v (tenant, id) on v.tenant = r.tenant and v.id = r.id
         order by r.tenant, r.id for update of r"
    );
    let rows: Vec<Resource> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(verdicts.iter().map(|verdict| &*verdict.key.tenant).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|verdict| &*verdict.key.id).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let key = |row: &Resource| Key { tenant: row.tenant.as_str().into(), id: row.id.as_str().into() };
    Ok(rows.into_iter().map(|row| (key(&row), row)).collect())
}

fn settle(row: &mut Resource, verdict: &Verdict, now: Nanos) -> (Settled, Option<proto::registry::ResourceChanged>) {
    let Some(before) = Status::named(&row.status) else { return (Settled::NotOurs, None) };
    let Some(change) = Change::between(before, verdict.after) else { return (Settled::Same, None) };
    row.status = verdict.after.to_string();
    row.last_seen = row.last_seen.max(verdict.heard);
    (Settled::Changed(change), Some(row.changed(change, Some(before.as_str()), now)))
}

async fn save(connection: &mut PgConnection, verdicts: &[Verdict], settled: &[Settled]) -> sqlx::Result<()> {
    let changed = verdicts.iter().zip(settled).filter(|(_, settled)| matches!(settled, Settled::Changed(_)));
    let changed: Vec<&Verdict> = changed.map(|(verdict, _)| verdict).collect();
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update resources r
         set status = v.status, last_seen = greatest(r.last_seen, v.heard), report_interval = v.report_interval
         from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
             as v (tenant, id, status, heard, report_interval)
         where r.tenant = v.tenant and r.id = v.id",
    )
    .bind(changed.iter().map(|verdict| &*verdict.key.tenant).collect::<Vec<_>>())
    .bind(changed.iter().map(|verdict| &*verdict.key.id).collect::<Vec<_>>())
    .bind(changed.iter().map(|verdict| verdict.after.as_str()).collect::<Vec<_>>())
    .bind(changed.iter().map(|verdict| verdict.heard).collect::<Vec<_>>())
    .bind(changed.iter().map(|verdict| verdict.interval.nanos()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
