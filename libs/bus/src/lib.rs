//! JetStream as Sightline uses it: streams, publishing, consuming, dead letters.
//!
//! A publish has happened when the broker has acknowledged it, and is repeated under the same id until then. A message
//! is acknowledged by whoever has stored what it says. Nothing travels over core NATS, which may drop.
//!
//! Streams keep by limits, not as work queues: what a store lost can be read again ([`Bus::follow`]).

mod account;
mod consume;
mod delivery;
mod envelope;
mod follow;
mod publish;
mod topology;

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use async_nats::{ConnectOptions, Event};
use lifecycle::Ready;

pub use account::{Account, Backlog};
pub use consume::Options;
pub use delivery::Delivery;
pub use envelope::{Encoding, Envelope, EnvelopeError};
pub use follow::From;
pub use publish::{Outgoing, PublishError};
pub use topology::{Stream, Subject};

/// Where the broker is, and how its streams are laid out.
#[derive(clap::Args, Debug, Clone)]
pub struct Settings {
    /// Address of the broker: nats://host:port, several separated by commas
    #[arg(
        long,
        env = "SIGHTLINE_NATS_URL",
        default_value = "nats://127.0.0.1:4222"
    )]
    pub nats_url: String,
    /// Prefix of streams, subjects, consumers and Redis keys, so that installations can share servers
    #[arg(long, env = "SIGHTLINE_NAMESPACE", default_value = "sl")]
    pub namespace: String,
    /// Shards of metrics, logs and processes; fixed when the installation is made (laptop 2, small 4, large 16)
    #[arg(long, env = "SIGHTLINE_SHARDS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: u16,
    /// Size that each stream keeps of what it received
    #[arg(long, env = "SIGHTLINE_STREAM_MAX_BYTES", default_value = "1GiB", value_parser = settings::bytes)]
    pub stream_max_bytes: u64,
    /// Copies of each stream; 3 in production
    #[arg(long, env = "SIGHTLINE_STREAM_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub stream_replicas: u8,
}

/// The broker. Clones share its two connections: one to publish, one to consume, so that a large pull never delays an
/// acknowledgement.
#[derive(Clone)]
pub struct Bus {
    publishing: jetstream::Context,
    consuming: jetstream::Context,
    window: publish::Window,
    layout: topology::Layout,
}

impl Bus {
    /// Waits for the broker, brings its streams and writers' consumers into being, and keeps `ready` true to the
    /// connection from then on.
    ///
    /// # Errors
    /// An address that cannot be read; never that the broker is away.
    pub async fn connect(settings: &Settings, ready: Ready) -> anyhow::Result<Self> {
        let bus = Self {
            publishing: connection(settings, None).await?,
            consuming: connection(settings, Some(ready.clone())).await?,
            window: publish::Window::default(),
            layout: topology::Layout::new(settings),
        };
        while let Err(error) = topology::create(&bus.consuming, &bus.layout).await {
            ready.down(format!("the broker's streams cannot be made: {error:#}"));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        ready.up();
        tracing::info!(durability = bus.durability(), "connected to the broker");
        Ok(bus)
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.layout.shards
    }

    /// The namespace, which also prefixes Redis keys.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.layout.namespace
    }

    /// What a power cut can cost with the connected server, in a sentence for people.
    #[must_use]
    pub fn durability(&self) -> String {
        let server = self.publishing.client().server_info();
        let replicas = self.layout.replicas;
        let version = &server.version;
        if replicas >= 3 {
            return format!(
                "nats-server {version}, {replicas} copies of each stream: one server may lose power without loss"
            );
        }
        if !self.publishing.client().is_server_compatible(2, 10, 0) {
            return format!(
                "nats-server {version}, one copy: a crash of the server loses nothing, a power cut can lose up to two minutes \
                 (this version has no sync_interval; use 2.12 or later)"
            );
        }
        format!(
            "nats-server {version}, one copy: a crash of the server loses nothing, a power cut loses what its sync_interval \
             had not flushed (two minutes by default, nothing with `always`)"
        )
    }

    /// Removes everything in this namespace from the broker. For tests.
    ///
    /// # Errors
    /// The broker.
    pub async fn purge(&self) -> anyhow::Result<()> {
        for stream in self.layout.streams() {
            self.consuming
                .delete_stream(self.layout.name(stream))
                .await
                .context("delete a stream")?;
        }
        Ok(())
    }
}

async fn connection(
    settings: &Settings,
    ready: Option<Ready>,
) -> anyhow::Result<jetstream::Context> {
    let servers: Vec<async_nats::ServerAddr> = settings
        .nats_url
        .split(',')
        .map(|url| {
            url.trim()
                .parse()
                .with_context(|| "read SIGHTLINE_NATS_URL; write nats://host:port")
        })
        .collect::<Result<_, _>>()?;
    loop {
        let watched = ready.clone();
        let options = ConnectOptions::new()
            .name("sightline")
            .max_reconnects(None)
            .connection_timeout(Duration::from_secs(2))
            .ping_interval(Duration::from_secs(5))
            .reconnect_delay_callback(|attempt| Duration::from_millis(50 << attempt.min(5)))
            .subscription_capacity(16 << 10)
            .event_callback(move |event| {
                let ready = watched.clone();
                async move { follow_connection(ready.as_ref(), &event) }
            });
        match options.connect(servers.as_slice()).await {
            Ok(client) => {
                let context = jetstream::ContextBuilder::new()
                    .timeout(Duration::from_secs(5))
                    .ack_timeout(Duration::from_secs(3))
                    .max_ack_inflight(publish::MOST_IN_FLIGHT)
                    .build(client);
                return Ok(context);
            }
            Err(error) => {
                if let Some(ready) = &ready {
                    ready.down(format!("the broker cannot be reached: {error}"));
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
    }
}

fn follow_connection(ready: Option<&Ready>, event: &Event) {
    let Some(ready) = ready else { return };
    match event {
        Event::Connected => ready.up(),
        Event::Disconnected | Event::Closed => ready.down("the connection to the broker is lost"),
        Event::SlowConsumer(id) => {
            tracing::error!(id, "the broker's messages arrive faster than they are read")
        }
        other => tracing::debug!(event = %other, "broker event"),
    }
}
