//! Builds what the api-gateway needs and registers its tasks.

use std::net::SocketAddr;
use std::sync::Arc;

use authn::Verifier;
use lifecycle::Process;
use rpc::Identity;

use crate::clients::Clients;
use crate::config::Config;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::metrics_store::MetricsStore;
use crate::routes;
use crate::state::Shared;
use crate::status::Status;

/// Runs the api-gateway.
///
/// # Errors
/// A configuration that cannot work, or an address that cannot be bound.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = Identity::load(&config.tls)?;
    let verifier = Verifier::new(rpc::channel(&identity, &config.auth_url)?, &process);
    serve(config, &identity, verifier, &process).await.map(|_| ())
}

/// Runs the api-gateway with `verifier` and tells where it listens.
///
/// # Errors
/// As with [`run`].
pub async fn serve(
    config: Config,
    identity: &Identity,
    verifier: Verifier,
    process: &Process,
) -> anyhow::Result<SocketAddr> {
    let tcp = edge::bind(config.http_listen).await?;
    let address = tcp.local_addr()?;
    let clients = Clients::new(&config, identity)?;
    let metrics = process.register(Metrics::register);
    let metrics_store = MetricsStore::new(&config, metrics.clone())?;
    let filter = process.ready("metrics_store_filter");
    process.spawn("metrics store filter", metrics_store.clone().watch(filter, process.stopping()));
    let status = Status::start(config.status_targets, config.bus, process);
    let live = Live::new(config.ws_fanout_url, identity.clone(), process.stopping());
    let trusted_proxies = config.edge.trusted_proxies.clone();
    let shared = Arc::new(Shared { verifier, clients, metrics_store, live, status, trusted_proxies });
    let listener = edge::Listener {
        port: "api",
        protocols: edge::Protocols::Http,
        tcp,
        tls: edge::Tls::OFF,
        router: routes::router(&shared, metrics)?,
        settings: config.edge,
        metrics: process.register(edge::Metrics::register),
        stopping: process.stopping(),
    };
    process.spawn("api", async move {
        listener.run().await?;
        shared.live.finish().await;
        Ok(())
    });
    Ok(address)
}
