//! Builds what the log-writer needs and registers its tasks.

use std::net::SocketAddr;

use authn::Verifier;
use bus::Bus;
use lifecycle::Process;
use model::Times;
use proto::logs::log_search_server::LogSearchServer;
use rpc::Identity;
use tonic::service::Routes;

use crate::config::Config;
use crate::consumer::{Most, Writer};
use crate::grpc::Search;
use crate::known::Known;
use crate::maintenance::Upkeep;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::store::Tables;

const MIGRATIONS: store::Migrations = store::migrations!("../../../migrations/log_writer"; 1 "create_logs");
const SCHEMA: &str = "log_writer";

/// Runs the log-writer.
///
/// # Errors
/// A configuration that cannot work, or a migration that fails.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = Identity::load(&config.tls)?;
    let verifier = Verifier::new(rpc::channel(&identity, &config.auth_url)?, &process);
    serve(config, process, &identity, verifier).await.map(|_| ())
}

/// Runs the log-writer with the given identity and verifier, and tells where its search API listens.
///
/// # Errors
/// As with [`run`].
pub async fn serve(
    config: Config,
    process: Process,
    identity: &Identity,
    verifier: Verifier,
) -> anyhow::Result<SocketAddr> {
    let metrics = process.register(Metrics::register);
    let pools = store::open(&process, &config.database, SCHEMA, MIGRATIONS).await?;
    let bus = Bus::open(&process, &config.bus).await?;
    let upkeep = Upkeep {
        pool: pools.work.clone(),
        bus: bus.clone(),
        metrics: metrics.clone(),
        retention: config.retention,
        remembered: config.remembered,
    };
    upkeep.prepare().await?;
    process.spawn("partitions", upkeep.run(process.stopping()));
    if !config.batch_check {
        tracing::warn!("SIGHTLINE_LOG_WRITER_BATCH_CHECK is false: what is delivered twice is stored twice");
    }
    let writing = process.ready("writing");
    writing.up();
    let most = Most { rows: config.rows, bytes: usize::try_from(config.bytes).unwrap_or(usize::MAX) };
    let writer = Writer {
        tables: Tables { pools: pools.clone(), batch_check: config.batch_check, known: Known::default() },
        ready: writing,
        metrics: metrics.clone(),
        times: Times { ahead: config.clock_skew, age: config.retention },
        most,
        pace: Pace::new(most.bytes),
        transaction: config.database.database_transaction_timeout,
    };
    process.spawn("writer", writer.run(bus, process.stopping()));
    let search = Search { pool: pools.api, verifier, timeout: config.search_timeout, metrics };
    let routes = Routes::new(LogSearchServer::new(search));
    rpc::serve(&process, "log-writer", identity, config.grpc_listen, routes).await
}
