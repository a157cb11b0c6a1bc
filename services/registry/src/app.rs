//! Puts the service together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use authn::Verifier;
use bus::Bus;
use lifecycle::{CancellationToken, Process};
use proto::registry::registry_server::RegistryServer;
use rpc::Identity;
use store::Pools;
use store::outbox::Outbox;
use tokio::sync::Notify;
use tonic::service::Routes;
use uuid::Uuid;

use crate::config::{Config, Settings};
use crate::consumer::Consumer;
use crate::grpc::Api;
use crate::heartbeats::Heartbeats;
use crate::metrics::Metrics;
use crate::publisher;
use crate::store::{MIGRATIONS, Store};
use crate::sweeper::Sweeper;

/// A list does without what Redis knows rather than wait for it.
const LAST_SEEN_WITHIN: Duration = Duration::from_millis(300);
/// Changes that the broker refused for ever are kept for people to look at.
const KEEP_DEAD: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Starts everything; returns when the service can answer.
///
/// # Errors
/// What cannot be repaired by waiting: bad settings, a taken port.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = Identity::load(&config.tls)?;
    let auth = rpc::channel(&identity, &config.auth_url).context("read SIGHTLINE_AUTH_URL")?;
    let verifier = Verifier::new(auth, &process);
    serve(&config.registry, &config.store, &config.bus, &identity, verifier, &process).await.map(|_| ())
}

/// As [`run`], with callers verified by `verifier`; tells where the API listens.
///
/// # Errors
/// As [`run`].
pub async fn serve(
    settings: &Settings,
    database: &::store::Settings,
    broker: &bus::Settings,
    identity: &Identity,
    verifier: Verifier,
    process: &Process,
) -> anyhow::Result<SocketAddr> {
    let metrics = process.register(Metrics::register);
    let heartbeats = Heartbeats::new(&settings.redis_url, &broker.namespace)?;
    let redis = process.ready("redis");
    let pools = ::store::open(process, database, "registry", MIGRATIONS).await?;
    let bus = Bus::open(process, broker).await?;
    let (store, wake) = (Store::new(pools.clone()), Arc::new(Notify::new()));
    let consumer = Consumer {
        store: store.clone(),
        thresholds: settings.thresholds(),
        metrics: metrics.clone(),
        wake: Arc::clone(&wake),
    };
    process.spawn("consume sightings", consumer.run(bus.clone(), process.stopping()));
    let api = Api { store: store.clone(), heartbeats: heartbeats.within(LAST_SEEN_WITHIN), verifier };
    let sweeper = Sweeper {
        store,
        heartbeats,
        settings: settings.clone(),
        metrics: metrics.clone(),
        wake: Arc::clone(&wake),
        redis,
        owner: Uuid::new_v4(),
        redis_was_away: false,
    };
    process.spawn("sweep heartbeats", sweeper.run(process.stopping()));
    process.spawn("prune the outbox", prune(pools.clone(), process.stopping()));
    let outbox = Outbox { pools, wake };
    let stopping = process.stopping();
    process.spawn("publish changes", async move {
        let publish = |message| publisher::publish(&bus, message);
        outbox.run(stopping, publish, |event| publisher::count(&metrics, event)).await
    });
    rpc::serve(process, "registry", identity, settings.grpc_listen, Routes::new(RegistryServer::new(api))).await
}

async fn prune(pools: Pools, stopping: CancellationToken) -> anyhow::Result<()> {
    const EVERY: Duration = Duration::from_secs(3_600);
    while stopping.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if let Err(error) = pools.bounded(::store::outbox::prune(&pools.work, KEEP_DEAD)).await {
            tracing::debug!(%error, "cannot prune the outbox");
        }
    }
    Ok(())
}
