//! Reading with acknowledgements: replicas share a durable consumer, and each message comes until somebody is done with it.
//!
//! Pulls ask for bytes: asking for many large messages makes the server call the client slow and cut it off. The loop
//! survives everything that can vanish: connection, consumer, stream.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::pull::{self, MessagesErrorKind};
use futures::{FutureExt as _, StreamExt as _};

use crate::connection::Loss;
use crate::delivery::Delivery;
use crate::stream::Stream;
use crate::{Bus, topology};

/// How to read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes asked for at a time; up to one and a half times as much waits in this process.
    pub max_bytes: usize,
    /// Messages asked for at a time.
    pub max_messages: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_bytes: 4 << 20, max_messages: 256 }
    }
}

const EXPIRES: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Errors in a row after which they are no passing trouble any more.
pub(crate) const PATIENCE: u32 = 3;
/// By then the server knows that this pull is gone; at once, it would send the message to it again.
pub(crate) const GIVE_BACK_AFTER: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The endless sequence of a durable consumer's messages.
pub struct Deliveries {
    bus: Bus,
    stream: Stream,
    durable: String,
    options: Options,
    pull: Option<(pull::Stream, Loss)>,
    errors: u32,
}

impl Deliveries {
    pub(crate) fn new(bus: Bus, stream: Stream, durable: &str, options: Options) -> Self {
        Self { bus, stream, durable: durable.to_owned(), options, pull: None, errors: 0 }
    }

    /// The next message, however long it takes. May be dropped at any time without losing one.
    pub async fn next(&mut self) -> Delivery {
        loop {
            match self.step().await {
                Ok(Some(delivery)) => {
                    self.errors = 0;
                    return delivery;
                }
                Ok(None) => {}
                Err(error) => self.mend(&error).await,
            }
        }
    }

    /// The next message, however long it takes, and those that are there already, `most` in all. May be dropped at any time
    /// without losing one.
    pub async fn several(&mut self, most: usize) -> Vec<Delivery> {
        let mut several = vec![self.next().await];
        while several.len() < most
            && let Some(delivery) = self.next().now_or_never()
        {
            several.push(delivery);
        }
        several
    }

    /// The same as a [`futures::Stream`]; it never ends.
    pub fn into_stream(self) -> impl futures::Stream<Item = Delivery> + Send {
        futures::stream::unfold(self, |mut deliveries| async move {
            let delivery = deliveries.next().await;
            Some((delivery, deliveries))
        })
    }

    /// Gives back what was pulled and not handed out, so that another replica gets it at once.
    pub async fn close(mut self) {
        let Some((mut pull, _)) = self.pull.take() else { return };
        while let Some(Some(Ok(message))) = pull.next().now_or_never() {
            if let Ok(delivery) = Delivery::new(self.bus.clone(), message) {
                delivery.nak(GIVE_BACK_AFTER).await;
            }
        }
    }

    async fn step(&mut self) -> anyhow::Result<Option<Delivery>> {
        let (pull, loss) = match &mut self.pull {
            Some((pull, loss)) => (pull, loss),
            None => {
                let loss = self.bus.consuming().watch();
                let pull = self.open().await?;
                let (pull, loss) = self.pull.insert((pull, loss));
                (pull, loss)
            }
        };
        let next = tokio::select! {
            biased;
            next = pull.next() => next,
            // What was pulled is handed out before; nothing more comes on a pull from before the loss.
            () = loss.happened() => None,
        };
        match next {
            Some(Ok(message)) => Ok(Some(Delivery::new(self.bus.clone(), message)?)),
            Some(Err(error)) => {
                // One missed heartbeat is a busy network; after the others this pull will never bring anything again.
                if !matches!(error.kind(), MessagesErrorKind::MissingHeartbeat) || self.errors > 0 {
                    self.pull = None;
                }
                Err(error).with_context(|| format!("pull from {}", self.stream))
            }
            None => {
                self.pull = None;
                anyhow::bail!("the pull from {} ended", self.stream)
            }
        }
    }

    async fn open(&self) -> anyhow::Result<pull::Stream> {
        let connection = self.bus.consuming();
        connection.connected().await;
        let settings = self.bus.settings();
        // After the broker lost its disk, or somebody cleaned up, both must be made again.
        topology::ensure_stream(&connection.jetstream, settings, self.stream).await?;
        let writer = self.stream.writer().filter(|writer| writer.durable == self.durable);
        let filter = writer.and_then(|writer| writer.filter).map(|subject| subject.name(&settings.namespace));
        let ack_wait = writer.map_or(Duration::from_secs(60), |writer| writer.ack_wait);
        let stream = self.stream.name(&settings.namespace);
        let consumer = topology::durable(&connection.jetstream, &stream, &self.durable, filter, ack_wait).await?;
        consumer
            .stream()
            .max_bytes_per_batch(self.options.max_bytes)
            .max_messages_per_batch(self.options.max_messages)
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .with_context(|| format!("begin to pull from {stream}"))
    }

    async fn mend(&mut self, error: &anyhow::Error) {
        self.errors = self.errors.saturating_add(1);
        if self.errors == PATIENCE {
            tracing::warn!(stream = %self.stream, durable = self.durable, error = format!("{error:#}"), "cannot read; trying on");
        } else {
            tracing::debug!(stream = %self.stream, durable = self.durable, error = format!("{error:#}"), "reading again");
        }
        tokio::time::sleep(pause(self.errors)).await;
    }
}

/// Short at first, because most trouble is a restart.
pub(crate) fn pause(errors: u32) -> Duration {
    (Duration::from_millis(50) * 2_u32.saturating_pow(errors.min(8))).min(LONGEST_PAUSE)
}
