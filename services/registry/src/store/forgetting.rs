//! Resources that are offline for so long that nobody will look for them.

use store::Lease;

use super::{RESOURCE, Store, Unfenced, changes, fence};
use crate::presence::{Change, Nanos};
use crate::resource::Resource;

/// Resources forgotten in one transaction.
const AT_ONCE: i64 = 500;

/// What was last seen before these times is forgotten; what people have tagged never is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Containers and pods, which never come back.
    pub(crate) short_lived: Nanos,
    /// Everything else.
    pub(crate) others: Nanos,
}

impl Store {
    /// Forgets some of what is long offline and announces it; gives how many.
    pub(crate) async fn forget(&self, lease: &Lease, retention: Retention, now: Nanos) -> Result<usize, Unfenced> {
        let work = async {
            let mut transaction = self.pools.work.begin().await?;
            fence(&mut transaction, lease).await?;
            let sql = format!(
                "select {RESOURCE} where r.status = 'offline' and r.tags = '{{}}'
                     and r.last_seen < case when r.kind in ('container', 'pod') then $1 else $2 end and r.last_seen < greatest($1, $2)
                 order by r.last_seen limit $3 for update of r skip locked"
            );
            let gone: Vec<Resource> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
                .bind(retention.short_lived)
                .bind(retention.others)
                .bind(AT_ONCE)
                .fetch_all(&mut *transaction)
                .await?;
            if gone.is_empty() {
                return Ok(0);
            }
            sqlx::query(
                "delete from resources r using unnest($1::text[], $2::text[]) as g (tenant, id)
                 where r.tenant = g.tenant and r.id = g.id",
            )
            .bind(gone.iter().map(|resource| resource.tenant.as_str()).collect::<Vec<_>>())
            .bind(gone.iter().map(|resource| resource.id.as_str()).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await?;
            let told: Vec<_> =
                gone.iter().map(|resource| resource.changed(Change::Forgotten, Some(&resource.status), now)).collect();
            changes::announce(&mut transaction, &told).await?;
            transaction.commit().await?;
            Ok(gone.len())
        };
        self.bounded(Box::pin(work)).await
    }
}
