//! Builds what the log-writer needs and registers its tasks.

use std::net::SocketAddr;

use authn::Verifier;
use bus::Bus;
use lifecycle::Process;
use proto::logs::log_search_server::LogSearchServer;
use rpc::Identity;
use tonic::service::Routes;

use crate::config::Config;
use crate::consumer::Writer;
use crate::envelope::Believed;
use crate::grpc::Search;
use crate::maintenance;
use crate::metrics::Metrics;

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
    let metrics = process.register(Metrics::new);
    let broker = process.ready("nats");
    let pool = store::open(&process, &config.database, SCHEMA, MIGRATIONS).await?.work;
    maintenance::create(&pool).await?;
    let bus = Bus::connect(&config.bus, broker).await?;
    process.spawn("partitions", maintenance::run(pool.clone(), bus.clone(), config.retention, process.stopping()));
    let writing = process.ready("writing");
    writing.up();
    let writer = Writer {
        pool: pool.clone(),
        ready: writing,
        metrics: metrics.clone(),
        believed: Believed { skew: config.clock_skew, retention: config.retention },
        rows: config.rows,
        batch_check: config.batch_check,
    };
    process.spawn("writer", writer.run(bus, process.stopping()));
    let search = Search { pool, verifier, timeout: config.search_timeout, metrics };
    let routes = Routes::new(LogSearchServer::new(search));
    rpc::serve(&process, "log-writer", identity, config.grpc_listen, routes).await
}
