//! Builds what ws-fanout needs and registers its tasks.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use authn::Verifier;
use bus::Bus;
use lifecycle::Process;
use rpc::Identity;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::socket::{self, Shared};
use crate::topic::{Kind, Topic};

/// Runs ws-fanout.
///
/// # Errors
/// A configuration that cannot work, or an address that cannot be bound.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = Identity::load(&config.tls)?;
    let verifier = Verifier::new(rpc::channel(&identity, &config.auth_url)?, &process);
    serve(config, process, verifier).await.map(|_| ())
}

/// Runs ws-fanout with the given verifier and tells where it listens.
///
/// # Errors
/// As with [`run`].
pub async fn serve(config: Config, process: Process, verifier: Verifier) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(config.http_listen)
        .await
        .with_context(|| format!("bind the address of live streams {}", config.http_listen))?;
    let address = listener.local_addr().context("read the address of live streams")?;
    let metrics = process.register(Metrics::new);
    let bus = Bus::connect(&config.bus, process.ready("nats")).await?;
    let topics = [Kind::Metrics, Kind::Logs, Kind::Alerts].map(|kind| (kind, Topic::new(kind, metrics.clone())));
    for (_, topic) in &topics {
        process.spawn("topic", topic.clone().run(bus.clone(), process.stopping()));
    }
    let shared = Arc::new(Shared {
        verifier,
        topics,
        queue: config.queue,
        most_clients: config.clients,
        stalled_after: config.stalled_after,
        metrics,
        stopping: process.stopping(),
        sockets: TaskTracker::new(),
    });
    let router = socket::router(Arc::clone(&shared));
    let stopping = process.stopping();
    process.spawn("live streams", async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(stopping.cancelled_owned())
            .await
            .context("serve live streams")?;
        shared.sockets.close();
        shared.sockets.wait().await;
        Ok(())
    });
    Ok(address)
}
