//! A topic: its listeners, and the task that follows its streams while there are any.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bus::{Bus, Delivery, From, Stream};
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use lifecycle::CancellationToken;
use model::RecentBatches;
use series::Reader;
use tokio::sync::watch;

use crate::client::Client;
use crate::event::{self, Event, Unreadable};
use crate::metrics::Metrics;

/// Bytes of series that a follower of metrics remembers; up to twice as many while series come and go.
const REMEMBERED: usize = 10 << 20;

/// What can be listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Metrics,
    Logs,
    Alerts,
}

impl Kind {
    fn streams(self, shards: u16) -> Vec<Stream> {
        match self {
            Self::Metrics => (0..shards).map(Stream::Metrics).collect(),
            Self::Logs => (0..shards).map(Stream::Logs).collect(),
            Self::Alerts => vec![Stream::Transitions],
        }
    }
}

/// One topic. Clones share it.
#[derive(Clone)]
pub(crate) struct Topic {
    kind: Kind,
    clients: Arc<Mutex<Vec<Weak<Client>>>>,
    state: Arc<watch::Sender<State>>,
    metrics: Metrics,
}

/// Changed as one: whoever begins to listen is either seen by a follower that is about to rest, or sees that it rests.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    listeners: usize,
    /// Whether the streams are followed now.
    live: bool,
}

/// What a follower knows from the messages before.
struct Memory {
    reader: Reader,
    recent: RecentBatches,
}

/// Keeps a client listening; dropping it ends that.
pub(crate) struct Listening {
    topic: Topic,
    pub(crate) client: Arc<Client>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.topic.state.send_modify(|state| state.listeners -= 1);
        self.topic.metrics.clients.dec();
    }
}

impl Topic {
    pub(crate) fn new(kind: Kind, metrics: Metrics) -> Self {
        Self { kind, clients: Arc::default(), state: Arc::default(), metrics }
    }

    pub(crate) fn listeners(&self) -> usize {
        self.state.borrow().listeners
    }

    /// Adds a client, and returns when everything that is published from now on will reach it.
    pub(crate) async fn listen(&self, client: Client) -> Listening {
        let client = Arc::new(client);
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&client));
        self.metrics.clients.inc();
        let listening = Listening { topic: self.clone(), client };
        self.state.send_modify(|state| state.listeners += 1);
        // The sender is our own, so this can only end with the state that is waited for.
        let _ = self.state.subscribe().wait_for(|state| state.live).await;
        listening
    }

    /// Follows the streams whenever somebody listens, until the process stops.
    pub(crate) async fn run(self, bus: Bus, stopping: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stopping.cancelled() => Ok(()),
            ended = self.follow(&bus) => ended,
        }
    }

    async fn follow(&self, bus: &Bus) -> anyhow::Result<()> {
        let mut state = self.state.subscribe();
        loop {
            state.wait_for(|state| state.listeners > 0).await?;
            let mut follows: SelectAll<BoxStream<'static, Delivery>> = SelectAll::new();
            for stream in self.kind.streams(bus.settings().shards) {
                follows.push(bus.follow(stream, From::New).await.into_stream().boxed());
            }
            self.state.send_modify(|state| state.live = true);
            let mut memory = Memory { reader: Reader::new(REMEMBERED), recent: RecentBatches::default() };
            while !self.rests() {
                tokio::select! {
                    deserted = state.wait_for(|state| state.listeners == 0) => { deserted?; }
                    Some(delivery) = follows.next() => self.show(&mut memory, &delivery),
                }
            }
        }
    }

    /// Ends being live if nobody listens, and tells whether it did.
    fn rests(&self) -> bool {
        self.state.send_if_modified(|state| {
            let rests = state.listeners == 0;
            state.live &= !rests;
            rests
        })
    }

    fn show(&self, memory: &mut Memory, delivery: &Delivery) {
        let clients = self.present();
        let each = |event: Event| {
            self.metrics.events.inc();
            for client in clients.iter().filter(|client| client.wants(&event)) {
                self.metrics.frames.inc();
                if client.queue.push(event.frame()) {
                    self.metrics.dropped.inc();
                }
            }
        };
        let read: Result<(), Unreadable> = match self.kind {
            Kind::Metrics => event::metrics(&mut memory.reader, delivery, each),
            Kind::Logs => event::logs(&mut memory.recent, delivery, each),
            Kind::Alerts => event::alert(delivery, each),
        };
        if let Err(error) = read {
            self.metrics.unreadable.inc();
            tracing::debug!(%error, stream = delivery.stream(), "a message cannot be shown");
        }
    }

    fn present(&self) -> Vec<Arc<Client>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| client.strong_count() > 0);
        clients.iter().filter_map(Weak::upgrade).collect()
    }
}
