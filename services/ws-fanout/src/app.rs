//! Builds what ws-fanout needs and registers its tasks.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use authn::Verifier;
use bus::Bus;
use edge::{Listener, Protocols, Tls};
use lifecycle::Process;
use rpc::Identity;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::follower::Follower;
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::queue::Room;
use crate::socket::{self, Shared};
use crate::topic::Topic;

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
    let tls = Tls::load(config.live_tls, Some(config.tls_files()))?;
    let tcp = edge::bind(config.http_listen).await?;
    let address = tcp.local_addr().context("read the address of live streams")?;
    let metrics = process.register(Metrics::register);
    let bus = Bus::open(&process, &config.bus).await?;
    let live = &config.live;
    let topics: Vec<Topic> =
        Kind::ALL.map(|kind| Topic::new(kind, config.bus.shards, metrics.clone())).into_iter().collect();
    for topic in &topics {
        for channel in topic.channels.iter() {
            let (channel, bus, live, metrics) = (Arc::clone(channel), bus.clone(), live.clone(), metrics.clone());
            let follower = Follower { kind: topic.kind, channel, bus, live, metrics };
            process.spawn("follow a stream", follower.run(process.stopping()));
        }
    }
    let bytes = |size: u64| usize::try_from(size).context("use the limits of queues");
    let shared = Arc::new(Shared {
        verifier,
        topics,
        room: Room::new(bytes(live.queue)?, bytes(live.memory)?),
        largest_frame: bytes(live.queue)?,
        places: Places::new(live.clients, live.tenant_clients),
        stalled_after: live.stalled_after,
        metrics,
        stopping: process.stopping(),
        sockets: TaskTracker::new(),
    });
    let listener = Listener {
        port: "live",
        protocols: Protocols::Http,
        tcp,
        tls,
        router: socket::router(&shared),
        settings: config.edge,
        metrics: process.register(edge::Metrics::register),
        stopping: process.stopping(),
    };
    process.spawn("live streams", async move {
        listener.run().await?;
        shared.sockets.close();
        shared.sockets.wait().await;
        Ok(())
    });
    Ok(address)
}
