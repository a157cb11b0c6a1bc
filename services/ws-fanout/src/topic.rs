//! A topic: its streams, and who listens to which of them.

use std::sync::Arc;

use bus::Stream;
use model::ResourceId;
use tokio::sync::watch;

use crate::audience::Audience;
use crate::client::Client;
use crate::kind::Kind;
use crate::metrics::Metrics;

/// One topic. Clones share it.
#[derive(Clone)]
pub(crate) struct Topic {
    pub(crate) kind: Kind,
    pub(crate) channels: Arc<[Arc<Channel>]>,
    shards: u16,
    metrics: Metrics,
}

/// One stream of a topic and who listens to it.
pub(crate) struct Channel {
    pub(crate) stream: Stream,
    pub(crate) audience: Audience,
    pub(crate) state: watch::Sender<State>,
}

/// Changed as one: whoever begins to listen is either seen by a follower that is about to rest, or sees that it rests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State {
    pub(crate) listeners: usize,
    /// Whether the stream is followed now.
    pub(crate) live: bool,
}

/// Keeps a client listening; dropping it ends that.
pub(crate) struct Listening {
    channels: Vec<Arc<Channel>>,
    pub(crate) client: Arc<Client>,
    metrics: Metrics,
}

impl Topic {
    pub(crate) fn new(kind: Kind, shards: u16, metrics: Metrics) -> Self {
        let channel =
            |stream| Arc::new(Channel { stream, audience: Audience::default(), state: watch::Sender::default() });
        Self { kind, channels: kind.streams(shards).into_iter().map(channel).collect(), shards, metrics }
    }

    /// Adds a client to the streams that can have something for it.
    pub(crate) fn join(&self, client: Client) -> Listening {
        let client = Arc::new(client);
        let channels = self.concerning(&client);
        for channel in &channels {
            channel.audience.join(&client);
            channel.state.send_modify(|state| state.listeners += 1);
        }
        self.metrics.clients.inc();
        Listening { channels, client, metrics: self.metrics.clone() }
    }

    /// One stream for whoever wants one resource, whose shard its id tells; all for everybody else.
    fn concerning(&self, client: &Client) -> Vec<Arc<Channel>> {
        let resource = client.wanted.resource_id.as_ref().filter(|_| self.kind != Kind::Alerts);
        let id = resource.and_then(|id| id.parse::<ResourceId>().ok());
        let one = id.and_then(|id| self.channels.get(usize::from(model::shard(&client.tenant, &id, self.shards))));
        one.map_or_else(|| self.channels.to_vec(), |channel| vec![Arc::clone(channel)])
    }
}

impl Listening {
    /// Resolves when everything that is published from now on will reach the client: after the broker was there once.
    pub(crate) async fn live(&self) {
        for channel in &self.channels {
            // The sender is ours, so this can only end with the state that is waited for.
            let _ = channel.state.subscribe().wait_for(|state| state.live).await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        for channel in &self.channels {
            channel.audience.leave(&self.client);
            channel.state.send_modify(|state| state.listeners -= 1);
        }
        self.metrics.clients.dec();
    }
}
