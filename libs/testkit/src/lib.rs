//! Real servers, fresh databases and certificates for tests.
//!
//! `cargo dev test` starts PostgreSQL, NATS, Redis and VictoriaMetrics once and says where they are; each test takes a
//! database and a namespace of its own there, so tests run in parallel and meet nowhere.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot get its servers must stop at once, and say why"
)]

mod gate;
mod program;
mod tokens;
mod wait;

use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::LazyLock;
use std::time::SystemTime;

use serde::Deserialize;
use settings::Secret;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use uuid::Uuid;

pub use gate::Gate;
pub use program::{Program, Running};
pub use tokens::{Tokens, admin_token, tokens};
pub use wait::{eventually, metric, until_missing, until_ready};

/// Where the servers are.
#[derive(Debug, Deserialize)]
pub struct Servers {
    /// `nats://host:port`
    pub nats: String,
    /// `http://host:port` of the broker's monitor.
    pub nats_monitor: String,
    /// The broker's program, for tests that stop and start one of their own.
    pub nats_server: String,
    /// A superuser's URL.
    pub postgres: String,
    /// `redis://host:port`
    pub redis: String,
    /// Base URL of VictoriaMetrics.
    pub metrics: String,
    /// Where the built programs lie.
    pub bin_dir: String,
    /// Where the programs of the release before lie; nothing where this clone does not have its commit.
    pub previous_bin_dir: Option<String>,
    /// Those that this run started itself.
    pub running: Vec<RunningServer>,
}

/// A server of this run.
#[derive(Debug, Deserialize)]
pub struct RunningServer {
    /// The program's name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Where it says so.
    pub version: Option<String>,
}

/// The servers of this run.
///
/// # Panics
/// Outside `cargo dev test`.
#[must_use]
pub fn servers() -> &'static Servers {
    static SERVERS: LazyLock<Servers> = LazyLock::new(|| {
        let text = std::env::var_os("SIGHTLINE_TEST_SERVERS").unwrap_or_else(|| {
            panic!("no servers: run tests with `cargo dev test`, for one crate `cargo dev test -p <crate>`")
        });
        serde_json::from_str(text.to_str().unwrap()).unwrap()
    });
    &SERVERS
}

/// A fresh, empty database. It goes with the servers.
pub async fn database() -> store::Settings {
    let options = PgConnectOptions::from_str(&servers().postgres).unwrap();
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    let name = format!("t_{}", Uuid::new_v4().simple());
    connection.execute(AssertSqlSafe(format!("create database {name}"))).await.unwrap();
    let (server, _) = servers().postgres.rsplit_once('/').unwrap();
    let url = Secret::from(format!("{server}/{name}"));
    store::Settings { database_connections: 5, database_api_connections: 3, ..store::Settings::at(url) }
}

/// A fresh namespace on the broker, with small streams and two shards.
#[must_use]
pub fn namespace() -> bus::Settings {
    bus::Settings {
        nats_url: Secret::from(servers().nats.clone()),
        namespace: format!("t{}", &Uuid::new_v4().simple().to_string()[..12]),
        shards: 2,
        stream_max_bytes: 16 << 20,
        dead_max_bytes: 16 << 20,
        hold_limit: std::time::Duration::from_secs(120),
        stream_replicas: 1,
    }
}

/// Where Redis is. Keys carry the namespace, so tests do not meet.
#[must_use]
pub fn redis_url() -> String {
    servers().redis.clone()
}

/// Where VictoriaMetrics is. Series carry the tenant, which each test chooses afresh.
#[must_use]
pub fn metrics_url() -> String {
    servers().metrics.clone()
}

/// A tenant that no other test has.
#[must_use]
pub fn tenant() -> String {
    format!("t{}", &Uuid::new_v4().simple().to_string()[..12])
}

/// The certificate of `service`, from an authority that all tests of this process share.
#[must_use]
pub fn identity(service: &str) -> rpc::Identity {
    static AUTHORITY: LazyLock<pki::Authority> = LazyLock::new(|| {
        lifecycle::install_crypto();
        pki::Authority::new().unwrap()
    });
    let issued = AUTHORITY.issue(service, &[service, "localhost", "127.0.0.1"]).unwrap();
    rpc::Identity::from_pem(AUTHORITY.certificate(), issued.certificate, issued.key)
}

/// A channel to the service under test at `address`, as the api-gateway calls it.
#[must_use]
pub fn channel(address: SocketAddr) -> rpc::Channel {
    rpc::channel(&identity("api-gateway"), &format!("https://localhost:{}", address.port())).unwrap()
}

/// Unix nanoseconds.
#[must_use]
pub fn now() -> u64 {
    u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap()
}
