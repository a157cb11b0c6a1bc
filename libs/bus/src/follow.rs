//! Reading along without acknowledgements, in order, from a place of the reader's own choice.
//!
//! The consumer on the server is a throw-away; the place is kept here. When the consumer, the connection or the server
//! is gone, another consumer begins after the last message that was handed out. If the stream has dropped messages by
//! then, the next delivery says how many ([`Delivery::missed`]). If the broker lost the end of the stream, numbers are
//! used again; then the broker's clock finds the place.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use time::OffsetDateTime;

use crate::Bus;
use crate::delivery::Delivery;
use crate::lines::Seat;
use crate::look::unix_nanos;
use crate::pull::{Options, Pull};
use crate::stream::Stream;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With what is published from now on.
    New,
    /// With this sequence, or with the oldest there is.
    Sequence(u64),
    /// After a message that was read before, found by its sequence and checked by the time the broker took it
    /// ([`Delivery::published`]), so that numbers used twice are noticed.
    After { sequence: u64, published: u64 },
    /// With the first message that the broker took at or after this time, Unix nanoseconds.
    Time(u64),
}

/// The server forgets the consumer of a reader that is gone after this time.
const INACTIVE: Duration = Duration::from_secs(60);

/// The endless sequence of a stream's messages.
pub struct Follow {
    bus: Bus,
    stream: Stream,
    from: From,
    seat: Seat,
    pull: Pull,
}

impl Follow {
    /// Finds the place to begin, waiting for the broker as long as it takes: whatever is published after this returns
    /// will be read.
    pub(crate) async fn begin(bus: Bus, stream: Stream, from: From) -> Self {
        let seat = bus.seat();
        let mut follow = Self { bus, stream, from, seat, pull: Pull::default() };
        while let Err(error) = follow.settle().await {
            follow.pull.mend(stream, None, &error).await;
        }
        follow
    }

    /// The next message, however long it takes. May be dropped at any time without losing one.
    pub async fn next(&mut self) -> Delivery {
        loop {
            match self.step().await {
                Ok(delivery) => {
                    self.pull.recovered();
                    return delivery;
                }
                Err(error) => self.pull.mend(self.stream, None, &error).await,
            }
        }
    }

    /// The same as a [`futures::Stream`]; it never ends.
    pub fn into_stream(self) -> impl futures::Stream<Item = Delivery> + Send {
        futures::stream::unfold(self, |mut follow| async move {
            let delivery = follow.next().await;
            Some((delivery, follow))
        })
    }

    /// Turns "from now on" into a number, which stays true when the consumer has to be made again.
    async fn settle(&mut self) -> anyhow::Result<()> {
        if self.from == From::New {
            let stream = self.handle().await?;
            self.from = From::Sequence(stream.cached_info().state.last_sequence + 1);
        }
        Ok(())
    }

    async fn handle(&self) -> anyhow::Result<jetstream::stream::Stream> {
        let connection = self.seat.connection().await;
        connection.connected().await;
        let name = self.stream.name(&self.bus.settings().namespace);
        connection.jetstream.get_stream(&name).await.with_context(|| format!("look for stream {name}"))
    }

    async fn step(&mut self) -> anyhow::Result<Delivery> {
        if !self.pull.is_open() {
            let loss = self.seat.connection().await.watch();
            let consumer = self.consumer().await?;
            let opened = self.pull.open(consumer, &Options::default(), loss).await;
            opened.with_context(|| format!("begin to pull from {}", self.stream))?;
        }
        let message = self.pull.next().await.with_context(|| format!("read along {}", self.stream))?;
        self.take(Delivery::new(self.bus.clone(), message)?)
    }

    /// Moves the place past `delivery`. Numbers are without gaps within a stream, so a jump is what was evicted, or, on
    /// a consumer that goes on after a lost connection, what was sent while nobody listened: then it is read again.
    fn take(&mut self, delivery: Delivery) -> anyhow::Result<Delivery> {
        let sequence = delivery.stream_sequence();
        let expected = match self.from {
            From::Sequence(sequence) => Some(sequence),
            From::After { sequence, .. } => Some(sequence + 1),
            From::New | From::Time(_) => None,
        };
        let fresh = delivery.consumer_sequence() == 1;
        let missed = match expected {
            Some(expected) if sequence < expected && !fresh => {
                anyhow::bail!("message {sequence} of {} came again", self.stream)
            }
            Some(expected) if sequence > expected && !fresh => {
                self.pull.close();
                anyhow::bail!("message {expected} of {} did not come", self.stream)
            }
            Some(expected) => sequence.saturating_sub(expected),
            None => 0,
        };
        if missed > 0 {
            tracing::warn!(stream = %self.stream, missed, sequence, "messages were evicted before they were read");
        }
        self.from = From::After { sequence, published: delivery.published() };
        Ok(delivery.with_missed(missed))
    }

    async fn consumer(&self) -> anyhow::Result<PullConsumer> {
        let stream = self.handle().await?;
        let deliver_policy = self.place(&stream).await?;
        stream
            .create_consumer(pull::Config {
                deliver_policy,
                ack_policy: AckPolicy::None,
                inactive_threshold: INACTIVE,
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            })
            .await
            .with_context(|| format!("begin to read along {}", self.stream))
    }

    async fn place(&self, stream: &jetstream::stream::Stream) -> anyhow::Result<DeliverPolicy> {
        let state = &stream.cached_info().state;
        Ok(match self.from {
            From::New => DeliverPolicy::New,
            From::Time(nanos) => at(nanos)?,
            From::Sequence(sequence) if sequence > state.last_sequence + 1 => {
                tracing::warn!(stream = %self.stream, sequence, last = state.last_sequence, "the stream ends before the place to begin; reading all of it");
                DeliverPolicy::All
            }
            From::Sequence(start_sequence) => by_sequence(start_sequence),
            From::After { sequence, .. } if sequence < state.first_sequence => by_sequence(sequence + 1),
            From::After { sequence, published } => match stream.get_raw_message(sequence).await {
                Ok(message) if unix_nanos(message.time) == published => by_sequence(sequence + 1),
                Ok(_) => self.restored(sequence, published)?,
                Err(error) if sequence > state.last_sequence => {
                    tracing::debug!(%error, "the last message read is not in the stream");
                    self.restored(sequence, published)?
                }
                // Deleted by hand, in the middle of the stream.
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => by_sequence(sequence + 1),
                Err(error) => {
                    return Err(error).with_context(|| format!("look for message {sequence} of {}", self.stream));
                }
            },
        })
    }

    fn restored(&self, sequence: u64, published: u64) -> anyhow::Result<DeliverPolicy> {
        tracing::warn!(stream = %self.stream, sequence, "the broker lost the end of the stream; going on by its clock");
        at(published.saturating_add(1))
    }
}

/// The server refuses 0, which means the same as 1.
fn by_sequence(sequence: u64) -> DeliverPolicy {
    DeliverPolicy::ByStartSequence { start_sequence: sequence.max(1) }
}

fn at(nanos: u64) -> anyhow::Result<DeliverPolicy> {
    let start_time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos)).context("read a start time")?;
    Ok(DeliverPolicy::ByStartTime { start_time })
}
