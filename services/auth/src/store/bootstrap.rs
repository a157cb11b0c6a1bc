//! The first start, one replica at a time.

use seal::Kept;
use sqlx::{Postgres, Transaction};
use store::Pool;
use uuid::Uuid;

/// Any number that no other lock of this database uses.
const BOOTSTRAP_LOCK: i64 = 0x5167_6874_6175_7468;

/// Holds every other replica's start up until it is committed.
pub struct Bootstrap {
    transaction: Transaction<'static, Postgres>,
}

impl Bootstrap {
    pub(crate) async fn begin(pool: &Pool) -> Result<Self, sqlx::Error> {
        let mut transaction = pool.begin().await?;
        sqlx::query("select pg_advisory_xact_lock($1)").bind(BOOTSTRAP_LOCK).execute(&mut *transaction).await?;
        Ok(Self { transaction })
    }

    /// Every key that is not retired, by its id.
    pub(crate) async fn keys(&mut self) -> Result<Vec<(String, Kept)>, sqlx::Error> {
        self.kept("select id, pkcs8, sealed from signing_keys where retired_at is null").await
    }

    /// Every secret, by its name.
    pub(crate) async fn secrets(&mut self) -> Result<Vec<(String, Kept)>, sqlx::Error> {
        self.kept("select name, value, sealed from secrets").await
    }

    async fn kept(&mut self, select: &'static str) -> Result<Vec<(String, Kept)>, sqlx::Error> {
        let rows: Vec<(String, Vec<u8>, bool)> = sqlx::query_as(select).fetch_all(&mut *self.transaction).await?;
        Ok(rows.into_iter().map(|(name, bytes, sealed)| (name, Kept { bytes, sealed })).collect())
    }

    /// Puts a key there, signing at once, or in place of itself.
    pub(crate) async fn keep_key(&mut self, id: &str, kept: &Kept) -> Result<(), sqlx::Error> {
        self.keep(
            "insert into signing_keys (id, pkcs8, sealed, active_at) values ($1, $2, $3, now())
             on conflict (id) do update set pkcs8 = excluded.pkcs8, sealed = excluded.sealed",
            id,
            kept,
        )
        .await
    }

    /// Puts a secret there, or in place of itself.
    pub(crate) async fn keep_secret(&mut self, name: &str, kept: &Kept) -> Result<(), sqlx::Error> {
        self.keep(
            "insert into secrets (name, value, sealed) values ($1, $2, $3)
             on conflict (name) do update set value = excluded.value, sealed = excluded.sealed",
            name,
            kept,
        )
        .await
    }

    async fn keep(&mut self, insert: &'static str, name: &str, kept: &Kept) -> Result<(), sqlx::Error> {
        sqlx::query(insert).bind(name).bind(&kept.bytes).bind(kept.sealed).execute(&mut *self.transaction).await?;
        Ok(())
    }

    pub(crate) async fn has_admin(&mut self) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("select exists (select from user_roles where role = 'admin')")
            .fetch_one(&mut *self.transaction)
            .await
    }

    pub(crate) async fn create_admin(&mut self, tenant: &str, username: &str, hash: &str) -> Result<(), sqlx::Error> {
        sqlx::query(
            "with admin as (
                 insert into users (id, tenant, username, password_hash) values ($1, $2, $3, $4) returning id)
             insert into user_roles (user_id, role) select id, 'admin' from admin",
        )
        .bind(Uuid::new_v4())
        .bind(tenant)
        .bind(username)
        .bind(hash)
        .execute(&mut *self.transaction)
        .await
        .map(|_| ())
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.transaction.commit().await
    }
}
