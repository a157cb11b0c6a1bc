//! Reaches Postgres: pools, migrations, classes of errors, leases, the outbox, upkeep. No service's queries live here.

mod error;
mod lease;
mod migrations;
pub mod outbox;
mod pools;
pub mod retention;
mod upkeep;

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use lifecycle::{Process, Ready};
use settings::Secret;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tracing::info;

pub use error::{fault, is_away, is_poison, search_fault, too_slow};
pub use lease::{Lease, LeaseError};
pub use migrations::{Migration, Migrations};
pub use pools::Pools;
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
    /// Most connections that this process opens for its work: consumers, leases, what it publishes
    #[arg(long, env = "SIGHTLINE_DATABASE_CONNECTIONS", default_value = "10", value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,
    /// Most connections that this process opens besides for what its API is asked
    #[arg(long, env = "SIGHTLINE_DATABASE_API_CONNECTIONS", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_api_connections: u32,
    /// How long Postgres may work on one statement of the API
    #[arg(long, env = "SIGHTLINE_DATABASE_QUERY_TIMEOUT", default_value = "10s", value_parser = limit)]
    pub database_query_timeout: Duration,
    /// How long a transaction of the work may take; then it is given up and tried again, as when Postgres is away
    #[arg(long, env = "SIGHTLINE_DATABASE_TRANSACTION_TIMEOUT", default_value = "30s", value_parser = limit)]
    pub database_transaction_timeout: Duration,
}

impl Settings {
    /// The database at this URL, and the defaults for everything else.
    #[must_use]
    pub fn at(database_url: Secret) -> Self {
        Self {
            database_url,
            database_connections: 10,
            database_api_connections: 5,
            database_query_timeout: Duration::from_secs(10),
            database_transaction_timeout: Duration::from_secs(30),
        }
    }
}

/// To Postgres, a timeout of 0 is none.
fn limit(text: &str) -> Result<Duration, String> {
    match settings::duration(text)? {
        limit if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&limit) => Ok(limit),
        _ => Err("write a duration from 100ms to 1h".to_owned()),
    }
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
) -> anyhow::Result<Pools> {
    let ready = process.ready("postgres");
    let pools = connect(settings, schema, migrations, &ready).await?;
    process.spawn("postgres watch", watch(pools.work.clone(), ready, process.stopping()));
    Ok(pools)
}

/// Waits for Postgres, brings `schema` up to date, and opens the pools.
///
/// # Errors
/// A URL that cannot be read, or a migration that fails; never that Postgres is away.
pub async fn connect(
    settings: &Settings,
    schema: &'static str,
    migrations: Migrations,
    ready: &Ready,
) -> anyhow::Result<Pools> {
    let options = PgConnectOptions::from_str(settings.database_url.reveal())
        .map_err(|_| anyhow::anyhow!("the database URL cannot be read; write postgres://role@host:port/database"))?
        .application_name(schema)
        .options([("search_path", schema)]);
    let mut connection = first_connection(&options, ready).await;
    migrations.apply(&mut connection, schema).await.with_context(|| format!("migrate schema {schema}"))?;
    // Closing is a courtesy to the server; the connection is gone either way.
    let _ = connection.close().await;
    let pools = Pools::new(settings, &options);
    ready.up();
    Ok(pools)
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

/// A server that neither takes nor refuses a connection is asked again after this time.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

async fn first_connection(options: &PgConnectOptions, ready: &Ready) -> PgConnection {
    let mut delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        let connected = tokio::time::timeout(CONNECT_WITHIN, PgConnection::connect_with(options)).await;
        match connected.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut)) {
            Ok(connection) => {
                info!(host = options.get_host(), port = options.get_port(), "connected to Postgres");
                return connection;
            }
            Err(error) => ready.down(error::reason(&error)),
        }
        tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(2))).await;
    }
}
