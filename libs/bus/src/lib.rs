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
mod attempt;
mod batch;
mod buried;
mod claim;
mod connection;
mod consume;
mod counts;
mod deferral;
mod delivery;
mod durability;
mod envelope;
mod follow;
mod headers;
mod lines;
mod look;
mod publish;
mod pull;
mod room;
mod settings;
mod shards;
mod stream;
mod tally;
mod topology;
mod trial;
mod watch;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lifecycle::{Process, Ready};

pub use account::Account;
pub use async_nats::HeaderMap;
pub use batch::Batch;
pub use buried::Buried;
pub use claim::Claim;
pub use consume::Deliveries;
pub use delivery::{Delivery, ack_all, in_work};
pub use envelope::{Encoding, Envelope, InvalidEnvelope, MAX_BODY_BYTES, Schema};
pub use follow::{Follow, From};
pub use look::Progress;
pub use publish::{Outgoing, PublishError};
pub use pull::Options;
pub use room::Backlog;
pub use settings::Settings;
pub use stream::{Stream, Subject};
pub use trial::Trial;

use connection::{Connection, Links};
use counts::Counts;
use lines::{Lines, Seat};
use watch::Metrics;

/// How long it is said that a message was put off: it comes again before.
const UNKNOWN_SAID: Duration = Duration::from_secs(90);

const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// The connection of a process to the broker. Clones share it.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    links: Links,
    publishing: Connection,
    consuming: Arc<Lines>,
    window: publish::Window,
    counts: Counts,
    rooms: room::Rooms,
    waiting: deferral::Waiting,
    /// What only a newer version knows, and when it was seen last.
    unknown: Mutex<Option<Instant>>,
    metrics: Metrics,
    /// Streams that had no room the last time.
    full: Mutex<BTreeSet<Stream>>,
    /// Streams whose counts could not be written the last time.
    uncounted: Mutex<BTreeSet<Stream>>,
    /// Streams that this process has to handle the messages of.
    read_here: Mutex<BTreeSet<Stream>>,
}

impl Bus {
    /// Connects as [`connect`](Self::connect) with the flag `broker` of `/readyz`, registers the bus's metrics, and watches
    /// the streams that this process reads.
    ///
    /// # Errors
    /// As with [`connect`](Self::connect).
    pub async fn open(process: &Process, settings: &Settings) -> anyhow::Result<Self> {
        let metrics = process.register(Metrics::register);
        let bus = Self::with_metrics(settings, process.ready("broker"), metrics).await?;
        process.spawn("broker watch", watch::run(bus.clone(), process.stopping()));
        Ok(bus)
    }

    /// Connects, and makes the streams and the writers' consumers. Waits for the broker as long as it takes, and says in
    /// `ready` what is missing; from then on `ready` follows the state of the connections.
    ///
    /// # Errors
    /// The installation was made with another number of shards. Whatever else is wrong with the broker may be right a
    /// moment later.
    pub async fn connect(settings: &Settings, ready: Ready) -> anyhow::Result<Self> {
        let metrics = Metrics::register(&mut telemetry::metrics::Registry::default());
        Self::with_metrics(settings, ready, metrics).await
    }

    async fn with_metrics(settings: &Settings, ready: Ready, metrics: Metrics) -> anyhow::Result<Self> {
        let links = Links::new(ready);
        let url = settings.nats_url.reveal();
        let publishing = Connection::open(url, "publishing", &links).await;
        let mut delay = Duration::from_millis(100);
        while let Err(error) = topology::ensure(&publishing.jetstream, settings).await {
            if error.is::<shards::OtherNumber>() {
                return Err(error);
            }
            links.set("streams", Some(format!("cannot prepare the streams: {error:#}")));
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(2));
        }
        let inner = Inner {
            settings: settings.clone(),
            consuming: Lines::new(url, &links),
            publishing,
            window: publish::Window::new(),
            counts: Counts::default(),
            rooms: room::Rooms::default(),
            waiting: deferral::Waiting::default(),
            unknown: Mutex::default(),
            metrics,
            full: Mutex::default(),
            uncounted: Mutex::default(),
            read_here: Mutex::default(),
            links,
        };
        let bus = Self { inner: Arc::new(inner) };
        tracing::info!(durability = bus.durability(), "connected to the broker");
        bus.check_payload();
        bus.inner.links.prepared();
        Ok(bus)
    }

    /// Publishes and waits for the broker's acknowledgement, repeating with the same id until `message.within` is over.
    /// Where the stream is full of what nobody has handled yet, that is waited for, too, and `/readyz` says so. When this future is dropped, the state of the message is unknown.
    ///
    /// # Errors
    /// What is known about the message instead.
    pub async fn publish(&self, subject: Subject, message: Outgoing) -> Result<(), PublishError> {
        let name = subject.name(&self.inner.settings.namespace);
        publish::publish(self, subject.stream(), name, message).await
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
        if stream.writer().is_some_and(|writer| writer.durable == durable) {
            self.inner.read_here.lock().unwrap_or_else(PoisonError::into_inner).insert(stream);
        }
        Deliveries::new(self.clone(), stream, durable, options)
    }

    /// Reads along `stream`. Returns when the place to begin is known, so that whatever is published after that is read.
    pub async fn follow(&self, stream: Stream, from: From) -> Follow {
        Follow::begin(self.clone(), stream, from).await
    }

    /// Which messages `service` has made dead letters of.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn buried(&self, service: &'static str) -> anyhow::Result<Buried> {
        Buried::read(self, service).await
    }

    /// What a replica of `service` knows of who does `what` for all of them; both are words of a subject.
    #[must_use]
    pub fn claim(&self, service: &str, what: &str) -> Claim {
        Claim::new(self.clone(), service, what)
    }

    /// What became of the messages of every stream.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn account(&self) -> anyhow::Result<Vec<Account>> {
        account::account(self).await
    }

    /// How much room `stream` has. Where little is left, what its writer has handled is removed first.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn backlog(&self, stream: Stream) -> anyhow::Result<Backlog> {
        room::backlog(self, stream).await
    }

    /// Waits until what was said about deliveries has left this process: the last thing to do before it ends, since an
    /// answer that stays behind makes its message come again only after the time to acknowledge. Takes two seconds at the most.
    ///
    /// # Errors
    /// The broker does not take some of it.
    pub async fn flush(&self) -> anyhow::Result<()> {
        let flushed = self.inner.consuming.open().into_iter().map(|connection| async move {
            tokio::time::timeout(FLUSH_WITHIN, connection.client.flush()).await.context("wait for the broker")??;
            anyhow::Ok(())
        });
        futures::future::join_all(flushed).await.into_iter().collect()
    }

    /// How far the writer of `stream` has come.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn progress(&self, stream: Stream) -> anyhow::Result<Progress> {
        look::progress(self, stream).await
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
        for stream in Stream::all(self.inner.settings.shards) {
            let name = stream.name(&self.inner.settings.namespace);
            let deleted = self.inner.publishing.jetstream.delete_stream(&name).await;
            deleted.with_context(|| format!("delete stream {name}"))?;
        }
        Ok(())
    }

    /// Says where the server takes less than the largest message: what is refused for that is refused for ever.
    pub(crate) fn check_payload(&self) {
        let (takes, wanted) = (self.inner.publishing.client.server_info().max_payload, topology::MAX_MESSAGE_BYTES);
        let is_small = takes < usize::try_from(wanted).unwrap_or_default();
        let reason = format!("NATS takes messages of {takes} bytes at most; set its max_payload to {wanted} or more");
        self.inner.links.set("max_payload", is_small.then_some(reason));
    }

    pub(crate) fn publishing(&self) -> &Connection {
        &self.inner.publishing
    }

    pub(crate) fn seat(&self) -> Seat {
        self.inner.consuming.seat()
    }

    pub(crate) fn window(&self) -> &publish::Window {
        &self.inner.window
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    pub(crate) fn rooms(&self) -> &room::Rooms {
        &self.inner.rooms
    }

    /// A message was put off that only a newer version knows. That is no reason not to be ready: this process does all else,
    /// and while a release is rolled out, every replica of the one before sees such messages.
    pub(crate) fn saw_unknown(&self) {
        *self.inner.unknown.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.inner.metrics.put_off.inc();
        self.inner.metrics.unknown.set(1);
    }

    /// What was put off has found somebody, or has not come again for a while.
    pub(crate) fn forget_unknown(&self) {
        let mut unknown = self.inner.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.take_if(|seen| seen.elapsed() > UNKNOWN_SAID).is_some() {
            self.inner.metrics.unknown.set(0);
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn links(&self) -> &Links {
        &self.inner.links
    }

    pub(crate) fn read_here(&self) -> BTreeSet<Stream> {
        self.inner.read_here.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `stream` took no message for lack of room.
    pub(crate) fn is_full(&self, stream: Stream) {
        let is_new = self.inner.full.lock().unwrap_or_else(PoisonError::into_inner).insert(stream);
        if !is_new {
            return;
        }
        self.inner.metrics.full.of([stream.kind()]).set(1);
        // A full signal stream is said to the clients, with every answer; without room for dead letters, everything else
        // goes on.
        if stream == Stream::Dead {
            tracing::error!("there is no room for dead letters: look at them, and delete them");
        } else if !stream.is_signal() {
            let reader = stream.writer().map_or("somebody", |writer| writer.durable);
            let reason = format!("the stream {stream} is full; {reader} must work it off");
            self.inner.links.set(&format!("full {stream}"), Some(reason));
        }
    }

    /// `stream` took a message.
    pub(crate) fn has_room(&self, stream: Stream) {
        let was_full = self.inner.full.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
        if was_full {
            self.inner.metrics.full.of([stream.kind()]).set(0);
            self.inner.links.set(&format!("full {stream}"), None);
        }
    }

    /// Whether it could be written down how messages of `stream` ended: as long as it cannot, none is acknowledged.
    pub(crate) fn counted(&self, stream: Stream, trouble: Option<&anyhow::Error>) {
        let mut uncounted = self.inner.uncounted.lock().unwrap_or_else(PoisonError::into_inner);
        let flag = |reason| self.inner.links.set(&format!("counts {stream}"), reason);
        match trouble {
            None if uncounted.remove(&stream) => flag(None),
            None => {}
            Some(error) => {
                tracing::warn!(%stream, error = format!("{error:#}"), "cannot count messages; they come again");
                uncounted.insert(stream);
                flag(Some(format!("nothing of {stream} is acknowledged, since it cannot be counted: {error:#}")));
            }
        }
    }

    pub(crate) fn uncounted(&self) -> BTreeSet<Stream> {
        self.inner.uncounted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn full(&self) -> BTreeSet<Stream> {
        self.inner.full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn knows_as_full(&self, stream: Stream) -> bool {
        self.inner.full.lock().unwrap_or_else(PoisonError::into_inner).contains(&stream)
    }
}
