//! Builds what the api-gateway needs and registers its tasks.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use authn::Verifier;
use bus::Bus;
use lifecycle::Process;
use rpc::Identity;
use tokio::net::TcpListener;

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
    serve(config, process).await.map(|_| ())
}

/// Runs the api-gateway and tells where it listens.
///
/// # Errors
/// As with [`run`].
pub async fn serve(config: Config, process: Process) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(config.http_listen)
        .await
        .with_context(|| format!("bind the API address {}", config.http_listen))?;
    let address = listener.local_addr().context("read the API address")?;
    let identity = Identity::load(&config.tls)?;
    let clients = Clients::new(&config, &identity)?;
    let bus = Bus::connect(&config.bus, process.ready("nats")).await?;
    let status = Status::new(bus);
    process.spawn("status", status.clone().watch(config.status_targets, process.stopping()));
    let shared = Arc::new(Shared {
        verifier: Verifier::new(rpc::channel(&identity, &config.auth_url)?, &process),
        clients,
        metrics_store: MetricsStore::new(config.metrics_url, config.query_timeout)?,
        live: Live::new(config.ws_fanout_url, process.stopping()),
        status,
    });
    let metrics = process.register(Metrics::new);
    let router = routes::router(Arc::clone(&shared), metrics).into_make_service_with_connect_info::<SocketAddr>();
    let stopping = process.stopping();
    process.spawn("api", async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(stopping.cancelled_owned())
            .await
            .context("serve the API")?;
        shared.live.finish().await;
        Ok(())
    });
    Ok(address)
}
