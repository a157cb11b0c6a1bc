//! One connection to the broker that waits for it at the start, comes back for ever, and knows its own state.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{ConnectOptions, Event, ServerAddr, jetstream};
use lifecycle::Ready;
use tokio::sync::watch;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const STATE_CHECK: Duration = Duration::from_millis(20);
/// A peer that vanished without a word is noticed after two unanswered pings.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// A connection and its JetStream context. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    /// How often it was lost: whoever waits for an answer on it sees the change.
    losses: watch::Receiver<u64>,
}

impl Connection {
    /// Waits until the server answers. `purpose` tells the connections of one process apart in the server's list.
    pub(crate) async fn open(url: &str, purpose: &str, links: &Links) -> Self {
        let mut delay = Duration::from_millis(100);
        loop {
            let (sender, losses) = watch::channel(0);
            match options(url, purpose, links, sender).connect(addresses(url)).await {
                Ok(client) => {
                    links.set(purpose, None);
                    let jetstream = ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
                    return Self { client, jetstream, losses };
                }
                Err(error) => links.set(purpose, Some(format!("cannot connect to NATS: {error}"))),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(2));
        }
    }

    /// Resolves when the connection is up. Asks the client, because its events are told without a guarantee.
    pub(crate) async fn connected(&self) {
        while self.client.connection_state() != State::Connected {
            tokio::time::sleep(STATE_CHECK).await;
        }
    }

    /// Begins to watch for the loss of the connection.
    pub(crate) fn watch(&self) -> Loss {
        let mut losses = self.losses.clone();
        losses.mark_unchanged();
        Loss(losses)
    }
}

/// Knows whether the connection was lost since it was made.
pub(crate) struct Loss(watch::Receiver<u64>);

impl Loss {
    /// Resolves when the connection has been lost; never before.
    pub(crate) async fn happened(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn addresses(url: &str) -> Vec<String> {
    url.split(',').map(|one| one.trim().to_owned()).collect()
}

/// User and password of the first address that has any; the client itself takes no notice of them.
fn credentials(url: &str) -> Option<(String, String)> {
    let server: ServerAddr =
        addresses(url).iter().filter_map(|one| one.parse().ok()).find(ServerAddr::has_user_pass)?;
    let decoded = |text: Option<&str>| {
        percent_encoding::percent_decode_str(text.unwrap_or_default()).decode_utf8_lossy().into_owned()
    };
    Some((decoded(server.username()), decoded(server.password())))
}

fn options(url: &str, purpose: &str, links: &Links, losses: watch::Sender<u64>) -> ConnectOptions {
    let links = links.clone();
    let (purpose, losses): (Arc<str>, _) = (purpose.into(), Arc::new(losses));
    let options = match credentials(url) {
        Some((user, password)) => ConnectOptions::with_user_and_password(user, password),
        None => ConnectOptions::new(),
    };
    options
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
            let (purpose, links, losses) = (Arc::clone(&purpose), links.clone(), Arc::clone(&losses));
            async move { note(&purpose, &event, &links, &losses) }
        })
}

fn note(purpose: &str, event: &Event, links: &Links, losses: &watch::Sender<u64>) {
    match event {
        Event::Connected => links.set(purpose, None),
        Event::Disconnected | Event::Closed => {
            losses.send_modify(|losses| *losses += 1);
            links.set(purpose, Some("the connection to NATS is lost".to_owned()));
        }
        Event::LameDuckMode | Event::Draining => {}
        other => tracing::warn!(purpose, event = %other, "the broker complained"),
    }
}

/// What is missing on the way to the broker, for all connections of one bus, told to `/readyz` as one flag.
#[derive(Clone)]
pub(crate) struct Links {
    ready: Ready,
    state: Arc<Mutex<Missing>>,
}

#[derive(Default)]
struct Missing {
    reasons: Vec<(String, String)>,
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

    pub(crate) fn set(&self, purpose: &str, reason: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reasons.retain(|(other, _)| other != purpose);
        state.reasons.extend(reason.map(|reason| (purpose.to_owned(), reason)));
        match state.reasons.first() {
            Some((_, reason)) => self.ready.down(reason.clone()),
            None if state.prepared => self.ready.up(),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::credentials;

    #[test]
    fn user_and_password_stand_in_the_url() {
        let found = credentials("nats://10.0.0.1:4222, nats://log-writer:p%40ss@10.0.0.2:4222");
        assert_eq!(found, Some(("log-writer".to_owned(), "p@ss".to_owned())));
        assert_eq!(credentials("nats://10.0.0.1:4222"), None);
    }
}
