//! Puts the service together.

use std::net::SocketAddr;

use anyhow::Context as _;
use authn::Verifier;
use bus::Bus;
use lifecycle::Process;
use tokio::sync::watch;
use tonic::service::Routes;

use crate::config::Config;
use crate::grpc::Api;
use crate::metrics::Metrics;
use crate::shard::Tools;
use crate::store::{MIGRATIONS, Store};
use crate::{leases, reload};

/// What the service needs besides the stores: who it is, where it listens, and whose tokens it believes.
pub struct Surroundings {
    pub identity: rpc::Identity,
    pub listen: SocketAddr,
    pub verifier: Verifier,
    pub bus: bus::Settings,
    pub store: store::Settings,
}

/// Starts everything from the configuration.
///
/// # Errors
/// Certificates, addresses or migrations that cannot be used.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = rpc::Identity::load(&config.tls)?;
    let auth = rpc::channel(&identity, &config.auth_url)?;
    let verifier = Verifier::new(auth, &process);
    let surroundings =
        Surroundings { identity, listen: config.grpc_listen, verifier, bus: config.bus, store: config.store };
    start(surroundings, &process).await.map(|_| ())
}

/// Starts everything, and gives the address of the gRPC server.
///
/// # Errors
/// Addresses or migrations that cannot be used; what is away is waited for.
pub async fn start(surroundings: Surroundings, process: &Process) -> anyhow::Result<SocketAddr> {
    let metrics = process.register(Metrics::register);
    let (broker, loaded) = (process.ready("broker"), process.ready("rules"));
    let (pools, bus) = tokio::try_join!(
        ::store::open(process, &surroundings.store, "rule_engine", MIGRATIONS),
        Bus::connect(&surroundings.bus, broker),
    )?;
    let store = Store::new(pools.work);
    let book = reload::first(&store, &loaded, &metrics).await;
    let (sender, books) = watch::channel(book);
    process.spawn("rules", reload::run(store.clone(), sender, metrics.clone(), process.stopping()));
    let api = Api::service(store.clone(), surroundings.verifier);
    let address = rpc::serve(process, "rule-engine", &surroundings.identity, surroundings.listen, Routes::new(api))
        .await
        .context("serve rules")?;
    let tools = Tools { bus, store, books, metrics };
    process.spawn("shards", leases::run(tools, process.stopping()));
    Ok(address)
}
