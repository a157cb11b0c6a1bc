//! Builds what the service needs and registers its tasks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use ::store::Pools;
use ::store::outbox::Outbox;
use authn::Verifier;
use bus::Bus;
use lifecycle::Process;
use proto::alerts::alerts_server::AlertsServer;
use tokio::sync::Notify;
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::consumer::Consumer;
use crate::deliveries::Deliveries;
use crate::grpc::AlertsApi;
use crate::metrics::Metrics;
use crate::outbox;
use crate::store::{MIGRATIONS, SCHEMA, pruning};
use crate::timers::Timers;

/// Starts the service; returns when it serves.
///
/// # Errors
/// A configuration that cannot work; never that a server is away.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = rpc::Identity::load(&config.tls)?;
    let verifier = Verifier::new(rpc::channel(&identity, &config.auth_url)?, &process);
    let pools = ::store::open(&process, &config.database, SCHEMA, MIGRATIONS).await?;
    let bus = Bus::open(&process, &config.bus).await?;
    start(&process, pools, bus, verifier, &config.alerts, &identity).await?;
    Ok(())
}

/// Registers the tasks and serves; gives the gRPC address.
///
/// # Errors
/// An address that cannot be bound.
pub async fn start(
    process: &Process,
    pools: Pools,
    bus: Bus,
    verifier: Verifier,
    settings: &Settings,
    identity: &rpc::Identity,
) -> anyhow::Result<SocketAddr> {
    let metrics = process.register(Metrics::register);
    let (committed, timer_set) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let consumer = Consumer {
        bus: bus.clone(),
        pools: pools.clone(),
        retention: settings.alert_retention,
        patience: settings.alert_predecessor_wait,
        metrics: metrics.clone(),
        committed: Arc::clone(&committed),
        timer_set: Arc::clone(&timer_set),
        is_cut_off: AtomicBool::new(false),
        answered: AtomicU64::new(0),
    };
    process.spawn("transitions", consumer.run(process.stopping()));
    let timers =
        Timers { pools: pools.clone(), metrics: metrics.clone(), set: timer_set, committed: Arc::clone(&committed) };
    process.spawn("timers", timers.run(process.stopping()));
    let deliveries = Deliveries { bus: bus.clone(), pools: pools.clone(), metrics: metrics.clone() };
    process.spawn("deliveries", deliveries.run(process.stopping()));
    let messages = Outbox { pools: pools.clone(), wake: Arc::clone(&committed) };
    let publish = move |message| outbox::publish(bus.clone(), message);
    let counts = metrics.clone();
    process.spawn("outbox", messages.run(process.stopping(), publish, move |event| outbox::count(&counts, event)));
    let (tables, keep) = (pools.work.clone(), settings.alert_retention);
    let prune = move || pruning::prune(tables.clone(), keep);
    let count = move |table, rows| {
        metrics.pruned_rows.of([table]).inc_by(rows);
    };
    process.spawn("retention", ::store::retention::run(pools.work.clone(), process.stopping(), prune, count));
    let routes = Routes::new(AlertsServer::new(AlertsApi { pools, verifier, committed }));
    rpc::serve(process, "alert-service", identity, settings.grpc_listen, routes).await
}
