//! JetStream as Sightline uses it: the streams there are, publishing that is acknowledged, reading that survives.
//!
//! - [`Bus::publish`] returns when the broker has the message, or says what is known about it instead.
//! - [`Bus::consume`] is for those who must handle every message: a durable consumer, shared by replicas, explicit
//!   acknowledgements, dead letters for what can never be handled. [`Batch`] holds messages while their store is away.
//! - [`Bus::follow`] is for those who read along: in order, without acknowledgements, keeping their own place.
//! - [`Bus::account`] says what became of everything that was taken in.
//!
//! Publishing and reading use connections of their own: a flood of deliveries must not delay acknowledgements.
//! `docs/contracts/nats.md` lists streams, subjects and headers.

mod account;
mod batch;
mod connection;
mod consume;
mod delivery;
mod durability;
mod envelope;
mod follow;
mod publish;
mod pull;
mod settings;
mod stream;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use lifecycle::Ready;

pub use account::{Account, Backlog, Progress};
pub use async_nats::HeaderMap;
pub use batch::Batch;
pub use consume::Deliveries;
pub use delivery::{Delivery, ack_all, in_work};
pub use envelope::{Encoding, Envelope, InvalidEnvelope, MAX_BODY_BYTES, Schema};
pub use follow::{Follow, From};
pub use publish::{Outgoing, PublishError};
pub use pull::Options;
pub use settings::Settings;
pub use stream::{Stream, Subject};

use connection::{Connection, Links};

/// The connection of a process to the broker. Clones share it.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    publishing: Connection,
    consuming: Connection,
    window: publish::Window,
    graveyard: tokio::sync::Mutex<account::Graveyard>,
}

impl Bus {
    /// Connects, and makes the streams and the writers' consumers. Waits for the broker as long as it takes, and says in
    /// `ready` what is missing; from then on `ready` follows the state of the connections.
    ///
    /// # Errors
    /// None today: whatever is wrong with the broker may be right a moment later.
    pub async fn connect(settings: &Settings, ready: Ready) -> anyhow::Result<Self> {
        let links = Links::new(ready);
        let url = settings.nats_url.reveal();
        let publishing = Connection::open(url, "publishing", &links).await;
        let consuming = Connection::open(url, "consuming", &links).await;
        let mut delay = Duration::from_millis(100);
        while let Err(error) = topology::ensure(&publishing.jetstream, settings).await {
            links.set("streams", Some(format!("cannot prepare the streams: {error:#}")));
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(2));
        }
        let inner = Inner {
            settings: settings.clone(),
            publishing,
            consuming,
            window: publish::Window::new(),
            graveyard: tokio::sync::Mutex::default(),
        };
        let bus = Self { inner: Arc::new(inner) };
        tracing::info!(durability = bus.durability(), "connected to the broker");
        links.prepared();
        Ok(bus)
    }

    /// Publishes and waits for the broker's acknowledgement, repeating with the same id until `message.within` is over.
    /// When this future is dropped, the state of the message is unknown.
    ///
    /// # Errors
    /// What is known about the message instead.
    pub async fn publish(&self, subject: Subject, message: Outgoing) -> Result<(), PublishError> {
        let subject = subject.name(&self.inner.settings.namespace);
        publish::publish(&self.inner.publishing, &self.inner.window, subject, message).await
    }

    /// Tells the time to whoever reads the signal of `subject`, where nothing else is published.
    ///
    /// # Errors
    /// What is known about the message instead.
    pub async fn tick(&self, subject: Subject, now_unix_nano: u64) -> Result<(), PublishError> {
        let tick = Envelope::tick(now_unix_nano).encode(format!("tick-{now_unix_nano}"));
        self.publish(subject, tick.map_err(|error| PublishError::Unavailable(error.to_string()))?).await
    }

    /// Reads `stream` through the durable consumer `durable`, made if it is not there. Never fails: it waits.
    #[must_use]
    pub fn consume(&self, stream: Stream, durable: &str, options: Options) -> Deliveries {
        Deliveries::new(self.clone(), stream, durable, options)
    }

    /// Reads along `stream`. Returns when the place to begin is known, so that whatever is published after that is read.
    pub async fn follow(&self, stream: Stream, from: From) -> Follow {
        Follow::begin(self.clone(), stream, from).await
    }

    /// What became of the messages of every stream.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn account(&self) -> anyhow::Result<Vec<Account>> {
        account::account(self).await
    }

    /// How much of `stream` its writer has not handled; all of it when there is no writer's consumer.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn backlog(&self, stream: Stream) -> anyhow::Result<Backlog> {
        account::backlog(self, stream).await
    }

    /// Waits until what was said about deliveries has left this process: the last thing to do before it ends, since an
    /// answer that stays behind makes its message come again only after the time to acknowledge.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn flush(&self) -> anyhow::Result<()> {
        self.inner.consuming.client.flush().await?;
        Ok(())
    }

    /// How far the writer of `stream` has come.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn progress(&self, stream: Stream) -> anyhow::Result<Progress> {
        account::progress(self, stream).await
    }

    /// What a power cut can cost with the server that we are connected to, in one sentence.
    #[must_use]
    pub fn durability(&self) -> String {
        durability::describe(&self.server_version(), self.inner.settings.stream_replicas)
    }

    /// The connected server's version.
    #[must_use]
    pub fn server_version(&self) -> String {
        self.inner.publishing.client.server_info().version
    }

    /// What the bus was told.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Deletes every stream of the namespace with all that is in it: the end of a test.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn delete_all_streams(&self) -> anyhow::Result<()> {
        use anyhow::Context as _;
        for stream in Stream::all(self.inner.settings.shards) {
            let name = stream.name(&self.inner.settings.namespace);
            let deleted = self.inner.publishing.jetstream.delete_stream(&name).await;
            deleted.with_context(|| format!("delete stream {name}"))?;
        }
        Ok(())
    }

    pub(crate) fn publishing(&self) -> &Connection {
        &self.inner.publishing
    }

    pub(crate) fn consuming(&self) -> &Connection {
        &self.inner.consuming
    }

    pub(crate) fn graveyard(&self) -> &tokio::sync::Mutex<account::Graveyard> {
        &self.inner.graveyard
    }
}
