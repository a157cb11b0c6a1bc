//! Puts the service together.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use authn::Verifier;
use bus::Bus;
use lifecycle::{CancellationToken, Process};
use proto::registry::registry_server::RegistryServer;
use rpc::Identity;
use tonic::service::Routes;
use uuid::Uuid;

use crate::config::{Config, Settings};
use crate::consumer::Consumer;
use crate::grpc::Api;
use crate::heartbeats::Heartbeats;
use crate::metrics::Metrics;
use crate::presence::Status;
use crate::relay::{self, Bell};
use crate::store::{MIGRATIONS, Store};
use crate::sweeper::Sweeper;

const COUNT_EVERY: Duration = Duration::from_secs(15);

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
    let (redis, nats) = (process.ready("redis"), process.ready("nats"));
    let pool = ::store::open(process, database, "registry", MIGRATIONS).await?.work;
    let bus = Bus::connect(broker, nats).await?;
    let (store, bell, thresholds) = (Store::new(pool), Bell::default(), settings.thresholds());
    let consumer = Consumer { store: store.clone(), thresholds, metrics: metrics.clone(), bell: bell.clone() };
    process.spawn("consume sightings", consumer.run(bus.clone(), process.stopping()));
    let sweeper = Sweeper {
        store: store.clone(),
        heartbeats,
        thresholds,
        metrics: metrics.clone(),
        bell: bell.clone(),
        redis,
        owner: Uuid::new_v4(),
    };
    process.spawn("sweep heartbeats", sweeper.run(process.stopping()));
    process.spawn("relay changes", relay::run(store.clone(), bus, metrics.clone(), bell, process.stopping()));
    process.spawn("count resources", count(store.clone(), metrics, process.stopping()));
    let api = Api { store, verifier };
    rpc::serve(process, "registry", identity, settings.grpc_listen, Routes::new(RegistryServer::new(api))).await
}

/// Keeps the gauges of resources by status, on every replica alike.
async fn count(store: Store, metrics: Metrics, stopping: CancellationToken) -> anyhow::Result<()> {
    loop {
        match store.count().await {
            Ok(counts) => {
                for status in Status::ALL {
                    metrics.resources(status, counts.get(&status).copied().unwrap_or_default());
                }
            }
            Err(error) => tracing::debug!(%error, "cannot count resources"),
        }
        if stopping.run_until_cancelled(tokio::time::sleep(COUNT_EVERY)).await.is_none() {
            return Ok(());
        }
    }
}
