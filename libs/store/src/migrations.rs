//! A service's migrations, embedded in its binary and applied under an advisory lock.

use std::borrow::Cow;

use anyhow::Context as _;
use sqlx::migrate::{MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _, SqlStr};

/// Any number that no other lock of the database uses.
const CREATE_LOCK: i64 = 0x5167_6874_6372_7465;

/// One file of `migrations/<service>/`.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The number that its file name begins with.
    pub version: i64,
    /// The rest of its file name.
    pub description: &'static str,
    /// The file's text.
    pub sql: &'static str,
}

/// All migrations of a service, oldest first; [`migrations!`](crate::migrations) makes it.
#[derive(Debug, Clone, Copy)]
pub struct Migrations(pub &'static [Migration]);

impl Migrations {
    /// Creates the schema where it is missing and applies what was not applied yet.
    pub(crate) async fn apply(self, connection: &mut PgConnection, schema: &'static str) -> anyhow::Result<()> {
        let exists: bool = sqlx::query_scalar("select exists (select from pg_namespace where nspname = $1)")
            .bind(schema)
            .fetch_one(&mut *connection)
            .await
            .context("look for the schema")?;
        if !exists {
            create(connection, format!("create schema if not exists {schema}")).await.context("create the schema")?;
        }
        let migrations = self.0.iter().map(|migration| {
            sqlx::migrate::Migration::new(
                migration.version,
                Cow::Borrowed(migration.description),
                MigrationType::Simple,
                SqlStr::from_static(migration.sql),
                false,
            )
        });
        // What a newer release has applied only adds, so this one can work with it: it may restart beside that one, and
        // be rolled back to.
        let migrator =
            Migrator { migrations: Cow::Owned(migrations.collect()), ignore_missing: true, ..Migrator::DEFAULT };
        migrator.run(&mut *connection).await.context("apply the migrations")?;
        create(connection, crate::lease::TABLE.to_owned()).await.context("create the table of leases")?;
        create(connection, crate::outbox::TABLE.to_owned()).await.context("create the table of the outbox")?;
        Ok(())
    }
}

/// Two replicas may start at once, and `if not exists` alone is not safe against that: the loser sees an error of some
/// catalogue or other. Statements sent together are one transaction, so the lock lasts until the thing is there.
async fn create(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    let alone = format!("select pg_advisory_xact_lock({CREATE_LOCK}); {sql}");
    connection.execute(AssertSqlSafe(alone)).await.map(|_| ())
}

/// Embeds files: `store::migrations!("../../../migrations/registry"; 1 "create_resources")` takes
/// `0001_create_resources.sql` from that folder, seen from the file that says it.
#[macro_export]
macro_rules! migrations {
    ($folder:literal; $($version:literal $name:literal),+ $(,)?) => {
        $crate::Migrations(&[$($crate::Migration {
            version: $version,
            description: $name,
            sql: include_str!(concat!($folder, "/000", $version, "_", $name, ".sql")),
        }),+])
    };
}
