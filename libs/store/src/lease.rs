//! Leases: rows that say who may do a thing now, with a fencing epoch that rises at every change of hands.

use std::time::Duration;

use sqlx::PgExecutor;
use uuid::Uuid;

/// Run after every service's migrations, so that all keep leases alike.
pub(crate) const TABLE: &str = "create table if not exists leases (
    name text primary key,
    owner uuid not null,
    epoch bigint not null,
    expires_at timestamptz not null
)";

/// The right to do the thing called `name`, until `ttl` after the last renewal.
#[derive(Debug, Clone)]
pub struct Lease {
    /// What is leased.
    pub name: String,
    /// Who holds it.
    pub owner: Uuid,
    /// Rises whenever it is taken; whoever writes under the lease carries it.
    pub epoch: i64,
    ttl: Duration,
}

/// Why a lease is not held.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else took it.
    #[error("the lease was lost")]
    Lost,
    /// Nobody knows.
    #[error("the lease cannot be checked")]
    Store(#[from] sqlx::Error),
}

impl Lease {
    /// Takes the lease if it is free, expired, or held by `owner` already; `None` while somebody else holds it. The epoch
    /// rises each time, also for the same owner: what it had begun under the lease that it lost must not count. It begins at
    /// the clock, in seconds: where the schema is made anew it goes on above what others have heard of.
    ///
    /// # Errors
    /// Postgres.
    pub async fn acquire(
        store: impl PgExecutor<'_>,
        name: &str,
        owner: Uuid,
        ttl: Duration,
    ) -> Result<Option<Self>, sqlx::Error> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "insert into leases as held (name, owner, epoch, expires_at)
             values ($1, $2, extract(epoch from clock_timestamp())::bigint, clock_timestamp() + $3 * interval '1 second')
             on conflict (name) do update
             set owner = excluded.owner, expires_at = excluded.expires_at, epoch = held.epoch + 1
             where held.owner = excluded.owner or held.expires_at < clock_timestamp()
             returning epoch",
        )
        .bind(name)
        .bind(owner)
        .bind(ttl.as_secs_f64())
        .fetch_optional(store)
        .await?;
        Ok(epoch.map(|epoch| Self { name: name.to_owned(), owner, epoch, ttl }))
    }

    /// Holds the lease for another `ttl`.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when somebody else took it; then stop at once.
    pub async fn renew(&self, store: impl PgExecutor<'_>) -> Result<(), LeaseError> {
        let done = sqlx::query(
            "update leases set expires_at = clock_timestamp() + $4 * interval '1 second'
             where name = $1 and owner = $2 and epoch = $3",
        )
        .bind(&self.name)
        .bind(self.owner)
        .bind(self.epoch)
        .bind(self.ttl.as_secs_f64())
        .execute(store)
        .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(LeaseError::Lost) }
    }

    /// Gives the lease back at once, so that the next owner need not wait for it to expire.
    ///
    /// # Errors
    /// Postgres; the lease then expires by itself.
    pub async fn release(self, store: impl PgExecutor<'_>) -> Result<(), sqlx::Error> {
        sqlx::query("update leases set expires_at = '-infinity' where name = $1 and owner = $2 and epoch = $3")
            .bind(&self.name)
            .bind(self.owner)
            .bind(self.epoch)
            .execute(store)
            .await
            .map(|_| ())
    }
}
