//! Builds what the service needs and registers its tasks.

use std::net::SocketAddr;
use std::sync::Arc;

use authn::Verifier;
use bus::Bus;
use lifecycle::Process;
use proto::alerts::alerts_server::AlertsServer;
use sqlx::PgPool;
use tokio::sync::Notify;
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::consumer::Consumer;
use crate::deliveries::Deliveries;
use crate::grpc::AlertsApi;
use crate::metrics::Metrics;
use crate::outbox::Publisher;
use crate::store::{MIGRATIONS, SCHEMA, pruning};

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
    start(&process, pool, bus, verifier, &config.alerts, &identity).await?;
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
    let committed = Arc::new(Notify::new());
    let consumer = Consumer {
        bus: bus.clone(),
        pool: pool.clone(),
        retention: settings.alert_retention,
        metrics: metrics.clone(),
        committed: Arc::clone(&committed),
    };
    let publisher = Publisher { bus: bus.clone(), pool: pool.clone(), metrics: metrics.clone(), committed };
    let deliveries = Deliveries { bus, pool: pool.clone(), metrics: metrics.clone() };
    process.spawn("transitions", consumer.run(process.stopping()));
    process.spawn("outbox", publisher.run(process.stopping()));
    process.spawn("deliveries", deliveries.run(process.stopping()));
    let (tables, keep) = (pool.clone(), settings.alert_retention);
    let prune = move || pruning::prune(tables.clone(), keep);
    let count = move |table, rows| metrics.pruned(table, rows);
    process.spawn("retention", ::store::retention::run(pool.clone(), process.stopping(), prune, count));
    let routes = Routes::new(AlertsServer::new(AlertsApi { pool, verifier }));
    rpc::serve(process, "alert-service", identity, settings.grpc_listen, routes).await
}
