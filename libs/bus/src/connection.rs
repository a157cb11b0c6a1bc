//! One connection to the broker that waits for it at the start, comes back for ever, and knows its own state.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::{ConnectOptions, Event, jetstream};
use lifecycle::Ready;
use tokio::sync::watch;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished without a word is noticed after two unanswered pings.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// A connection and its JetStream context. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    /// Whether it is up; changes are seen by everybody who waits for an answer on it.
    pub(crate) up: watch::Receiver<bool>,
}

impl Connection {
    /// Waits until the server answers. `purpose` tells the connections of one process apart in the server's list.
    pub(crate) async fn open(url: &str, purpose: &'static str, links: &Links) -> Self {
        let mut delay = Duration::from_millis(100);
        loop {
            let (sender, up) = watch::channel(true);
            match options(purpose, links, sender).connect(addresses(url)).await {
                Ok(client) => {
                    links.set(purpose, None);
                    let jetstream = ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
                    return Self { client, jetstream, up };
                }
                Err(error) => links.set(purpose, Some(format!("cannot connect to NATS: {error}"))),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(2));
        }
    }

    /// Resolves when the connection is up.
    pub(crate) async fn connected(&self) {
        // The sender lives in the client's own event callback, as long as the client.
        let _ = self.up.clone().wait_for(|up| *up).await;
    }

    /// Resolves when the connection is lost; never before.
    pub(crate) async fn lost(&self) {
        if self.up.clone().wait_for(|up| !*up).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn addresses(url: &str) -> Vec<String> {
    url.split(',').map(|one| one.trim().to_owned()).collect()
}

fn options(purpose: &'static str, links: &Links, up: watch::Sender<bool>) -> ConnectOptions {
    let links = links.clone();
    let up = Arc::new(up);
    ConnectOptions::new()
        .name(format!("sightline {purpose}"))
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| {
            let step = u64::try_from(attempt).unwrap_or(u64::MAX);
            Duration::from_millis(step.saturating_mul(50).min(1_000))
        })
        .event_callback(move |event| {
            let (links, up) = (links.clone(), Arc::clone(&up));
            async move { note(purpose, &event, &links, &up) }
        })
}

fn note(purpose: &'static str, event: &Event, links: &Links, up: &watch::Sender<bool>) {
    match event {
        Event::Connected => {
            up.send_replace(true);
            links.set(purpose, None);
        }
        Event::Disconnected | Event::Closed => {
            up.send_replace(false);
            links.set(purpose, Some("the connection to NATS is lost".to_owned()));
        }
        Event::LameDuckMode | Event::Draining => {}
        other => tracing::warn!(purpose, event = %other, "the broker complained"),
    }
}

/// The state of all connections of one bus, told to `/readyz` as one flag.
#[derive(Clone)]
pub(crate) struct Links {
    ready: Ready,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    missing: Vec<(&'static str, String)>,
    /// Connections alone do not make the bus ready: the streams must be there too.
    prepared: bool,
}

impl Links {
    pub(crate) fn new(ready: Ready) -> Self {
        Self { ready, state: Arc::default() }
    }

    pub(crate) fn prepared(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).prepared = true;
        self.set("streams", None);
    }

    pub(crate) fn set(&self, purpose: &'static str, reason: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.missing.retain(|(other, _)| *other != purpose);
        state.missing.extend(reason.map(|reason| (purpose, reason)));
        match state.missing.first() {
            Some((_, reason)) => self.ready.down(reason.clone()),
            None if state.prepared => self.ready.up(),
            None => {}
        }
    }
}
