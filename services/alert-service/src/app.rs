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

use crate::config::Config;
use crate::consumer::Consumer;
use crate::deliveries::Deliveries;
use crate::grpc::AlertsApi;
use crate::metrics::Metrics;
use crate::outbox::Publisher;
use crate::store::{MIGRATIONS, SCHEMA};

/// Starts the service; returns when it serves.
///
/// # Errors
/// A configuration that cannot work; never that a server is away.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = rpc::Identity::load(&config.tls)?;
    let verifier = Verifier::new(rpc::channel(&identity, &config.auth_url)?, &process);
    let broker = process.ready("nats");
    let pool = ::store::open(&process, &config.database, SCHEMA, MIGRATIONS).await?;
    let bus = Bus::connect(&config.bus, broker).await?;
    start(&process, pool, bus, verifier, &identity, config.grpc_listen).await?;
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
    identity: &rpc::Identity,
    listen: SocketAddr,
) -> anyhow::Result<SocketAddr> {
    let metrics = process.register(Metrics::register);
    let committed = Arc::new(Notify::new());
    let consumer =
        Consumer { bus: bus.clone(), pool: pool.clone(), metrics: metrics.clone(), committed: Arc::clone(&committed) };
    let publisher = Publisher { bus: bus.clone(), pool: pool.clone(), metrics: metrics.clone(), committed };
    let deliveries = Deliveries { bus, pool: pool.clone(), metrics };
    process.spawn("transitions", consumer.run(process.stopping()));
    process.spawn("outbox", publisher.run(process.stopping()));
    process.spawn("deliveries", deliveries.run(process.stopping()));
    let routes = Routes::new(AlertsServer::new(AlertsApi { pool, verifier }));
    rpc::serve(process, "alert-service", identity, listen, routes).await
}
