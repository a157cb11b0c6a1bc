//! The account of each stream: received = handled + dead-lettered + in flight; and how much is not handled yet.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::{self, consumer};
use futures::StreamExt as _;
use serde::Serialize;

use crate::Bus;
use crate::delivery::unix_nanos;
use crate::stream::Stream;

/// One stream in messages since it was made.
#[derive(Debug, Clone, Serialize)]
pub struct Account {
    /// The name on the server.
    pub stream: String,
    /// Messages that the broker acknowledged.
    pub received: u64,
    /// Of them, those that its writer has acknowledged as stored or handled. 0 where nobody has to.
    pub handled: u64,
    /// Those that became dead letters; not counted in `handled`.
    pub dead: u64,
    /// Those that wait for the writer or are with it now.
    pub in_flight: u64,
    /// Of `in_flight`, not yet delivered to the writer.
    pub pending: u64,
    /// Of `in_flight`, delivered and not acknowledged.
    pub ack_pending: u64,
    /// The durable consumer that all this is about; none where messages are only followed.
    pub writer: Option<&'static str>,
    /// The oldest message that is still kept.
    pub first_sequence: u64,
    pub bytes: u64,
    pub max_bytes: u64,
}

/// How much of a stream its writer has not handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Messages from the oldest unacknowledged one on.
    pub messages: u64,
    /// An estimate: those messages at the stream's average size.
    pub pending_bytes: u64,
    pub max_bytes: u64,
}

/// How far a stream's writer has come, in sequences of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Everything up to here is acknowledged as stored or handled.
    pub stored: u64,
    /// Nothing behind this has ever been delivered to the writer.
    pub delivered: u64,
    /// The newest message.
    pub last: u64,
    /// When the broker took the oldest message that is still kept, Unix nanoseconds; none where none is kept.
    pub oldest: Option<u64>,
}

/// Share of a stream, in percent, that may wait for its writer before new data is refused.
const REFUSE_ABOVE_PERCENT: u64 = 70;

impl Backlog {
    /// Whether new data must be refused, so that nothing is evicted before it is stored.
    #[must_use]
    pub fn must_refuse(&self) -> bool {
        self.pending_bytes.saturating_mul(100) > self.max_bytes.saturating_mul(REFUSE_ABOVE_PERCENT)
    }
}

/// Dead letters counted so far, by the stream they came from.
#[derive(Default)]
pub(crate) struct Graveyard {
    counted: u64,
    by_stream: HashMap<String, u64>,
}

pub(crate) async fn account(bus: &Bus) -> anyhow::Result<Vec<Account>> {
    let mut graveyard = bus.graveyard().lock().await;
    graveyard.count(bus).await.context("count the dead letters")?;
    let mut accounts = Vec::new();
    for stream in Stream::all(bus.settings().shards) {
        let mut account = one(bus, stream).await?;
        account.dead = graveyard.by_stream.get(&account.stream).copied().unwrap_or_default();
        account.handled = account.handled.saturating_sub(account.dead);
        accounts.push(account);
    }
    Ok(accounts)
}

async fn one(bus: &Bus, stream: Stream) -> anyhow::Result<Account> {
    let (info, consumer) = look(bus, stream).await?;
    let writer = stream.writer();
    // A writer whose consumer is missing has handled nothing that we could prove.
    let (pending, ack_pending) = match (&consumer, writer) {
        (Some(consumer), _) => (consumer.num_pending, u64::try_from(consumer.num_ack_pending).unwrap_or(u64::MAX)),
        (None, Some(_)) => (info.state.messages, 0),
        (None, None) => (0, 0),
    };
    let handled = if writer.is_some() { info.state.last_sequence.saturating_sub(pending + ack_pending) } else { 0 };
    Ok(Account {
        stream: info.config.name.clone(),
        received: info.state.last_sequence,
        handled,
        dead: 0,
        in_flight: pending + ack_pending,
        pending,
        ack_pending,
        writer: writer.map(|writer| writer.durable),
        first_sequence: info.state.first_sequence,
        bytes: info.state.bytes,
        max_bytes: u64::try_from(info.config.max_bytes).unwrap_or_default(),
    })
}

pub(crate) async fn backlog(bus: &Bus, stream: Stream) -> anyhow::Result<Backlog> {
    let (info, consumer) = look(bus, stream).await?;
    let state = &info.state;
    let messages = match &consumer {
        Some(consumer) if consumer.config.filter_subject.is_empty() => {
            // What lies behind one message that is never acknowledged counts: evicting goes by age.
            let stored = consumer.ack_floor.stream_sequence.max(state.first_sequence.saturating_sub(1));
            state.last_sequence.saturating_sub(stored)
        }
        Some(consumer) => consumer.num_pending + u64::try_from(consumer.num_ack_pending).unwrap_or(u64::MAX),
        None => state.messages,
    };
    let pending_bytes = u128::from(state.bytes) * u128::from(messages) / u128::from(state.messages.max(1));
    Ok(Backlog {
        messages,
        pending_bytes: u64::try_from(pending_bytes).unwrap_or(u64::MAX),
        max_bytes: u64::try_from(info.config.max_bytes).unwrap_or_default(),
    })
}

pub(crate) async fn progress(bus: &Bus, stream: Stream) -> anyhow::Result<Progress> {
    let (info, consumer) = look(bus, stream).await?;
    let (stored, delivered) =
        consumer.map_or((0, 0), |consumer| (consumer.ack_floor.stream_sequence, consumer.delivered.stream_sequence));
    let oldest = (info.state.messages > 0).then(|| unix_nanos(info.state.first_timestamp));
    Ok(Progress { stored, delivered, last: info.state.last_sequence, oldest })
}

async fn look(bus: &Bus, stream: Stream) -> anyhow::Result<(jetstream::stream::Info, Option<consumer::Info>)> {
    let name = stream.name(&bus.settings().namespace);
    let context = &bus.publishing().jetstream;
    let handle = context.get_stream(&name).await.with_context(|| format!("look at stream {name}"))?;
    let consumer = match stream.writer() {
        None => None,
        Some(writer) => match handle.consumer_info(writer.durable).await {
            Ok(info) => Some(info),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("look at consumer {} of {name}", writer.durable)),
        },
    };
    Ok((handle.cached_info().clone(), consumer))
}

impl Graveyard {
    /// Reads the headers of the dead letters that came since the last time.
    async fn count(&mut self, bus: &Bus) -> anyhow::Result<()> {
        let name = Stream::Dead.name(&bus.settings().namespace);
        let stream = bus.publishing().jetstream.get_stream(&name).await?;
        let last = stream.cached_info().state.last_sequence;
        if last < self.counted {
            *self = Self::default();
        }
        if last == self.counted {
            return Ok(());
        }
        let consumer = stream
            .create_consumer(pull::Config {
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.counted + 1 },
                ack_policy: AckPolicy::None,
                headers_only: true,
                inactive_threshold: Duration::from_secs(5),
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            })
            .await?;
        while self.counted < last {
            let mut batch = consumer.fetch().max_messages(1_000).messages().await?;
            let mut seen = false;
            while let Some(message) = batch.next().await {
                let message = message.map_err(anyhow::Error::from_boxed)?;
                let info = message.info().map_err(anyhow::Error::from_boxed)?;
                self.counted = info.stream_sequence;
                seen = true;
                let origin = message.headers.as_ref().and_then(|headers| headers.get("Sl-Dead-Stream"));
                if let Some(origin) = origin {
                    *self.by_stream.entry(origin.as_str().to_owned()).or_default() += 1;
                }
            }
            if !seen {
                // The rest was deleted by hand.
                self.counted = last;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Backlog;

    #[test]
    fn new_data_is_refused_above_seventy_percent() {
        let backlog = |pending_bytes| Backlog { messages: 1, pending_bytes, max_bytes: 1_000 };
        assert!(!backlog(700).must_refuse());
        assert!(backlog(701).must_refuse());
    }
}
