//! Builds what the service needs and registers its tasks.

use std::net::SocketAddr;
use std::sync::Arc;

use authn::Verifier;
use bus::Bus;
use lifecycle::Process;
use proto::dispatch::dispatch_server::DispatchServer;
use sqlx::PgPool;
use tokio::sync::Notify;
use tonic::service::Routes;

use crate::address::Policy;
use crate::config::{Config, Settings};
use crate::consumer::Consumer;
use crate::grpc::DispatchApi;
use crate::metrics::Metrics;
use crate::report::Reporter;
use crate::store::{MIGRATIONS, SCHEMA, pruning};
use crate::webhook::Sender;
use crate::worker::Worker;

/// Starts the service; returns when it serves.
///
/// # Errors
/// A configuration that cannot work; never that a server is away.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = rpc::Identity::load(&config.tls)?;
    let verifier = Verifier::new(rpc::channel(&identity, &config.auth_url)?, &process);
    let broker = process.ready("nats");
    let pool = ::store::open(&process, &config.database, SCHEMA, MIGRATIONS).await?.work;
    let bus = Bus::connect(&config.bus, broker).await?;
    start(&process, pool, bus, verifier, &config.dispatch, &identity).await?;
    Ok(())
}

/// Registers the tasks and serves; gives the gRPC address.
///
/// # Errors
/// An address that cannot be bound.
pub async fn start(
    process: &Process,
    pool: PgPool,
    bus: Bus,
    verifier: Verifier,
    settings: &Settings,
    identity: &rpc::Identity,
) -> anyhow::Result<SocketAddr> {
    let metrics = process.register(Metrics::register);
    let (added, finished) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let policy = Arc::new(Policy::new(settings.webhook_allowed_networks.0.clone()));
    let consumer = Consumer {
        bus: bus.clone(),
        pool: pool.clone(),
        retention: settings.delivery_retention,
        metrics: metrics.clone(),
        added: Arc::clone(&added),
        finished: Arc::clone(&finished),
    };
    let worker = Worker {
        pool: pool.clone(),
        sender: Sender::new(Arc::clone(&policy), settings.webhook_timeout)?,
        backoff: settings.backoff(),
        external_url: settings.external_url.clone(),
        claimer: Worker::claimer(settings.webhook_concurrency),
        metrics: metrics.clone(),
        added,
        finished: Arc::clone(&finished),
    };
    let reporter = Reporter { bus, pool: pool.clone(), metrics: metrics.clone(), finished };
    process.spawn("notifications", consumer.run(process.stopping()));
    process.spawn("deliveries", worker.run(process.stopping()));
    process.spawn("reports", reporter.run(process.stopping()));
    let (tables, keep) = (pool.clone(), settings.delivery_retention);
    let prune = move || pruning::prune(tables.clone(), keep);
    let count = move |table, rows| metrics.pruned(table, rows);
    process.spawn("retention", ::store::retention::run(pool.clone(), process.stopping(), prune, count));
    let routes = Routes::new(DispatchServer::new(DispatchApi { pool, verifier, policy }));
    rpc::serve(process, "dispatcher", identity, settings.grpc_listen, routes).await
}
