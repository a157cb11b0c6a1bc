//! Reaches Postgres: the pool, migrations, classes of errors, leases, upkeep. No service's queries live here.

mod error;
mod lease;
mod migrations;
pub mod retention;
mod upkeep;

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use lifecycle::{Process, Ready};
use settings::Secret;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use tracing::info;

pub use error::{fault, is_away, is_poison};
pub use lease::{Lease, LeaseError};
pub use migrations::{Migration, Migrations};
/// Connections to Postgres, all inside the service's own schema.
pub use sqlx::PgPool as Pool;
pub use upkeep::upkeep;

/// Where the service's tables live.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Settings {
    /// `postgres://role[:password]@host:port/database`; the service keeps to a schema of its own name
    #[arg(long, env = "SIGHTLINE_DATABASE_URL")]
    pub database_url: Secret,
    /// Most connections that this process opens
    #[arg(long, env = "SIGHTLINE_DATABASE_CONNECTIONS", default_value_t = 10)]
    pub database_connections: u32,
}

/// Connects as [`connect`], and keeps the flag `postgres` of `/readyz` true to whether Postgres answers.
///
/// # Errors
/// As with [`connect`].
pub async fn open(
    process: &Process,
    settings: &Settings,
    schema: &'static str,
    migrations: Migrations,
) -> anyhow::Result<Pool> {
    let ready = process.ready("postgres");
    let pool = connect(settings, schema, migrations, &ready).await?;
    process.spawn("postgres watch", watch(pool.clone(), ready, process.stopping()));
    Ok(pool)
}

/// Waits for Postgres, brings `schema` up to date, and opens the pool.
///
/// # Errors
/// A URL that cannot be read, or a migration that fails; never that Postgres is away.
pub async fn connect(
    settings: &Settings,
    schema: &'static str,
    migrations: Migrations,
    ready: &Ready,
) -> anyhow::Result<Pool> {
    let options = PgConnectOptions::from_str(settings.database_url.reveal())
        .map_err(|_| anyhow::anyhow!("the database URL cannot be read; write postgres://role@host:port/database"))?
        .application_name(schema)
        .options([("search_path", schema)]);
    let mut connection = first_connection(&options, ready).await;
    migrations.apply(&mut connection, schema).await.with_context(|| format!("migrate schema {schema}"))?;
    // Closing is a courtesy to the server; the connection is gone either way.
    let _ = connection.close().await;
    let pool = PgPoolOptions::new()
        .max_connections(settings.database_connections)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options);
    ready.up();
    Ok(pool)
}

/// Keeps `ready` true to whether Postgres answers, until the process stops.
///
/// # Errors
/// None; the signature is that of a supervised task.
pub async fn watch(pool: Pool, ready: Ready, stopping: lifecycle::CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let probe = tokio::time::timeout(Duration::from_secs(3), sqlx::query("select 1").execute(&pool));
        match probe.await {
            Ok(Ok(_)) => ready.up(),
            Ok(Err(error)) => ready.down(error::reason(&error)),
            Err(_) => ready.down("Postgres does not answer within 3 s"),
        }
    }
}

async fn first_connection(options: &PgConnectOptions, ready: &Ready) -> PgConnection {
    let mut delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        match PgConnection::connect_with(options).await {
            Ok(connection) => {
                info!(host = options.get_host(), port = options.get_port(), "connected to Postgres");
                return connection;
            }
            Err(error) => ready.down(error::reason(&error)),
        }
        tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(2))).await;
    }
}
