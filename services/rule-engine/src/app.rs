//! Puts the service together.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use authn::Verifier;
use bus::{Bus, Envelope};
use lifecycle::Process;
use tokio::sync::watch;
use tonic::service::Routes;

use crate::config::{Config, Rules};
use crate::grpc::Api;
use crate::metrics::Metrics;
use crate::reload::Shown;
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
    pub rules: Rules,
    /// See [`Tools::witness`].
    pub witness: fn(&Envelope),
}

/// Starts everything from the configuration.
///
/// # Errors
/// Certificates, addresses or migrations that cannot be used.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = rpc::Identity::load(&config.tls)?;
    let auth = rpc::channel(&identity, &config.auth_url)?;
    let verifier = Verifier::new(auth, &process);
    let surroundings = Surroundings {
        identity,
        listen: config.grpc_listen,
        verifier,
        bus: config.bus,
        store: config.store,
        rules: config.rules,
        witness: |_| {},
    };
    start(surroundings, &process).await.map(|_| ())
}

/// Starts everything, and gives the address of the gRPC server.
///
/// # Errors
/// Addresses or migrations that cannot be used; what is away is waited for.
pub async fn start(surroundings: Surroundings, process: &Process) -> anyhow::Result<SocketAddr> {
    let metrics = process.register(Metrics::register);
    let shown = Shown { loaded: process.ready("rules"), metrics: metrics.clone() };
    let (pools, bus) = tokio::try_join!(
        ::store::open(process, &surroundings.store, "rule_engine", MIGRATIONS),
        Bus::open(process, &surroundings.bus),
    )?;
    let store = Store::new(pools, surroundings.rules.per_tenant);
    let rules = reload::first(&store, &shown).await;
    let (sender, sets) = watch::channel(rules);
    process.spawn("rules", reload::run(store.clone(), sender, shown, process.stopping()));
    let api = Api::service(store.clone(), surroundings.verifier, surroundings.bus.shards);
    let address = rpc::serve(process, "rule-engine", &surroundings.identity, surroundings.listen, Routes::new(api))
        .await
        .context("serve rules")?;
    let settings = Arc::new(surroundings.rules);
    let tools = Tools { bus, store, sets, metrics, settings, witness: surroundings.witness };
    process.spawn("shards", leases::run(tools, process.stopping()));
    Ok(address)
}
