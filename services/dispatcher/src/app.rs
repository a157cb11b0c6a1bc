//! Builds what the service needs and registers its tasks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::seal::Seal;
use ::store::Pools;
use ::store::outbox::Outbox;
use authn::Verifier;
use bus::{Bus, Stream};
use lifecycle::{CancellationToken, Process};
use proto::dispatch::dispatch_server::DispatchServer;
use tokio::sync::Notify;
use tonic::service::Routes;

use crate::address::Policy;
use crate::config::{Config, Settings};
use crate::consumer::Consumer;
use crate::events;
use crate::grpc::DispatchApi;
use crate::metrics::Metrics;
use crate::store::adding::Patience;
use crate::store::claiming::Waiting;
use crate::store::receivers::Receivers;
use crate::store::{MIGRATIONS, SCHEMA, pruning};
use crate::upkeep::Upkeep;
use crate::webhook::Sender;
use crate::worker::Worker;

/// How often the broker is asked whether it could bring something, and how long it may take to answer.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_WITHIN: Duration = Duration::from_millis(500);

/// Starts the service; returns when it serves.
///
/// # Errors
/// A configuration that cannot work; never that a server is away.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = rpc::Identity::load(&config.tls)?;
    let verifier = Verifier::new(rpc::channel(&identity, &config.auth_url)?, &process);
    let pools = ::store::open(&process, &config.database, SCHEMA, MIGRATIONS).await?;
    let bus = Bus::open(&process, &config.bus).await?;
    start(&process, pools, bus, verifier, &config.dispatch, &identity).await?;
    Ok(())
}

/// Registers the tasks and serves; gives the gRPC address.
///
/// # Errors
/// An address that cannot be bound, a key that cannot be read.
pub async fn start(
    process: &Process,
    pools: Pools,
    bus: Bus,
    verifier: Verifier,
    settings: &Settings,
    identity: &rpc::Identity,
) -> anyhow::Result<SocketAddr> {
    let metrics = process.register(Metrics::register);
    let seal = Seal::from_file(settings.encryption_key_file.as_deref(), "SIGHTLINE_DISPATCHER_ENCRYPTION_KEY_FILE")?;
    let seal = Arc::new(seal);
    if !seal.has_key() {
        tracing::warn!("receivers' secrets lie in the database in clear; set SIGHTLINE_DISPATCHER_ENCRYPTION_KEY_FILE");
    }
    let (added, finished) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let policy = Arc::new(Policy::new(settings.webhook_allowed_networks.0.clone()));
    let consumer = Consumer {
        bus: bus.clone(),
        pools: pools.clone(),
        patience: Patience { wait: settings.predecessor_wait / 2, retention: settings.delivery_retention },
        metrics: metrics.clone(),
        added: Arc::clone(&added),
        finished: Arc::clone(&finished),
        is_cut_off: AtomicBool::new(false),
    };
    process.spawn("notifications", consumer.run(process.stopping()));
    let broker_answers = Arc::<AtomicBool>::default();
    process.spawn("broker watch", watch(bus.clone(), Arc::clone(&broker_answers), process.stopping()));
    let worker = Worker {
        pools: pools.clone(),
        seal: Arc::clone(&seal),
        sender: Sender::new(Arc::clone(&policy), settings.webhook_timeout)?,
        backoff: settings.backoff(),
        limits: settings.limits(),
        external_url: settings.external_url.clone(),
        claimer: Worker::claimer(),
        waiting: Waiting::of(settings.predecessor_wait, Arc::clone(&broker_answers)),
        metrics: metrics.clone(),
        added: Arc::clone(&added),
        finished: Arc::clone(&finished),
    };
    process.spawn("deliveries", worker.run(process.stopping()));
    let upkeep = Upkeep {
        pools: pools.clone(),
        patience: settings.patience(),
        metrics: metrics.clone(),
        added,
        finished: Arc::clone(&finished),
    };
    process.spawn("upkeep", upkeep.run(process.stopping()));
    let messages = Outbox { pools: pools.clone(), wake: finished };
    let (publish, counts) = (move |message| events::publish(bus.clone(), message), metrics.clone());
    process.spawn("reports", messages.run(process.stopping(), publish, move |event| events::count(&counts, &event)));
    let (tables, keep) = (pools.work.clone(), settings.delivery_retention);
    let prune = move || pruning::prune(tables.clone(), keep);
    let count = move |table, rows| {
        metrics.pruned_rows.of([table]).inc_by(rows);
    };
    process.spawn("retention", ::store::retention::run(pools.work.clone(), process.stopping(), prune, count));
    let receivers = Receivers { pools, seal };
    let routes = Routes::new(DispatchServer::new(DispatchApi { receivers, verifier, policy }));
    rpc::serve(process, "dispatcher", identity, settings.grpc_listen, routes).await
}

/// Keeps looking whether the broker answers.
async fn watch(bus: Bus, answers: Arc<AtomicBool>, stopping: CancellationToken) -> anyhow::Result<()> {
    let watch = async {
        loop {
            let asked = tokio::time::timeout(ASK_WITHIN, bus.progress(Stream::Notifications)).await;
            answers.store(matches!(asked, Ok(Ok(_))), Ordering::Relaxed);
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    stopping.run_until_cancelled(watch).await.unwrap_or(());
    Ok(())
}
