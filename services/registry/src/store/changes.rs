//! The outbox: changes between the transaction that made them and the broker.

use prost::Message as _;
use proto::registry::ResourceChanged;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Postgres, Row as _, Transaction};
use uuid::Uuid;

use super::Store;

/// Held by the one relay that publishes, so that a resource's changes stay in order.
const RELAY_LOCK: i64 = 0x5167_6874_7265_6779;

/// A change that the broker does not have yet.
pub struct Pending {
    pub position: i64,
    pub message_id: Uuid,
    pub tenant: String,
    pub payload: Vec<u8>,
}

impl FromRow<'_, PgRow> for Pending {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            position: row.try_get("position")?,
            message_id: row.try_get("message_id")?,
            tenant: row.try_get("tenant")?,
            payload: row.try_get("payload")?,
        })
    }
}

impl Store {
    /// The oldest changes, for whoever publishes alone; none while another replica does. They stay in the outbox until
    /// [`published`] is committed.
    pub(crate) async fn pending(
        &self,
        limit: i64,
    ) -> Result<(Transaction<'static, Postgres>, Vec<Pending>), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let alone: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock($1)")
            .bind(RELAY_LOCK)
            .fetch_one(&mut *transaction)
            .await?;
        if !alone {
            return Ok((transaction, Vec::new()));
        }
        let pending =
            sqlx::query_as("select position, message_id, tenant, payload from outbox order by position limit $1")
                .bind(limit)
                .fetch_all(&mut *transaction)
                .await?;
        Ok((transaction, pending))
    }
}

/// Takes what the broker has out of the outbox.
pub(crate) async fn published(
    mut transaction: Transaction<'static, Postgres>,
    positions: &[i64],
) -> Result<(), sqlx::Error> {
    sqlx::query("delete from outbox where position = any($1)").bind(positions).execute(&mut *transaction).await?;
    transaction.commit().await
}

pub(super) async fn announce(connection: &mut PgConnection, changes: &[ResourceChanged]) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = changes.iter().map(|_| Uuid::new_v4()).collect();
    let tenants: Vec<&str> = changes.iter().map(|change| change.tenant.as_str()).collect();
    let payloads: Vec<Vec<u8>> = changes.iter().map(ResourceChanged::encode_to_vec).collect();
    sqlx::query(
        "insert into outbox (message_id, tenant, payload)
         select * from unnest($1::uuid[], $2::text[], $3::bytea[])",
    )
    .bind(ids)
    .bind(tenants)
    .bind(payloads)
    .execute(connection)
    .await?;
    Ok(())
}
