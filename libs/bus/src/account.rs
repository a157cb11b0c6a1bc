//! The account of what was received, and how far behind its writers are.

use anyhow::Context as _;

use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};
use serde::Serialize;

use crate::{Bus, Stream};

/// One stream's account in messages: received = handled + in flight, and some of the handled are dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Name of the stream on the broker.
    pub stream: String,
    /// Messages that the broker ever acknowledged.
    pub received: u64,
    /// Not yet acknowledged by the service that must store them.
    pub in_flight: u64,
    /// Answered by that service: stored, or kept as dead letters.
    pub handled: u64,
    /// Bytes that the stream holds.
    pub bytes: u64,
}

/// What a stream's writer has not acknowledged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Estimated from the mean size of the messages kept.
    pub bytes: u64,
    /// Size at which the stream begins to forget.
    pub max_bytes: u64,
}

impl Backlog {
    /// Whether more than `percent` of the stream waits for its writer, so that more could push out what is not stored.
    #[must_use]
    pub fn exceeds(self, percent: u64) -> bool {
        self.bytes.saturating_mul(100) > self.max_bytes.saturating_mul(percent)
    }
}

struct Measured {
    received: u64,
    kept: u64,
    bytes: u64,
    max_bytes: u64,
    waiting: u64,
}

fn is_missing(error: &ConsumerInfoError) -> bool {
    error.kind() == ConsumerInfoErrorKind::NotFound
}

impl Bus {
    /// The account of every stream that has a writer; the last entry counts the dead letters.
    ///
    /// # Errors
    /// The broker.
    pub async fn account(&self) -> anyhow::Result<Vec<Account>> {
        let mut accounts = Vec::new();
        for stream in self.layout.streams() {
            if self.layout.writer(stream).is_none() && stream != Stream::Dead {
                continue;
            }
            let measured = self.measure(stream).await?;
            accounts.push(Account {
                stream: self.layout.name(stream),
                received: measured.received,
                in_flight: measured.waiting,
                handled: measured.received.saturating_sub(measured.waiting),
                bytes: measured.bytes,
            });
        }
        Ok(accounts)
    }

    /// How much of `stream` its writer has not acknowledged.
    ///
    /// # Errors
    /// The broker.
    pub async fn backlog(&self, stream: Stream) -> anyhow::Result<Backlog> {
        let measured = self.measure(stream).await?;
        let mean = measured
            .bytes
            .checked_div(measured.kept)
            .unwrap_or_default();
        Ok(Backlog {
            bytes: measured.waiting.saturating_mul(mean),
            max_bytes: measured.max_bytes,
        })
    }

    async fn measure(&self, stream: Stream) -> anyhow::Result<Measured> {
        let name = self.layout.name(stream);
        let handle = self
            .publishing
            .get_stream(&name)
            .await
            .with_context(|| format!("inspect the stream {name}"))?;
        let info = handle.cached_info();
        let waiting = match self.layout.writer(stream) {
            None => 0,
            Some((writer, _)) => match handle.consumer_info(writer).await {
                Ok(consumer) => consumer.num_pending + consumer.num_ack_pending as u64,
                // Nobody stores what this stream holds, so nothing of it may be forgotten.
                Err(error) if is_missing(&error) => info.state.messages,
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("inspect the consumer {writer} of {name}"));
                }
            },
        };
        Ok(Measured {
            received: info.state.last_sequence,
            kept: info.state.messages,
            bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX),
            waiting,
        })
    }
}
