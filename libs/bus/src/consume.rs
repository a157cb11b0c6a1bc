//! Reading with acknowledgements, through a durable consumer that replicas share.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{PullConsumer, pull};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::delivery::Delivery;
use crate::{Bus, Stream, topology};

/// How much is asked for at once.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Messages of one pull.
    pub messages: usize,
    /// Bytes of one pull. Above 32 MB over one connection the server calls the client slow and cuts it off.
    pub bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            messages: 256,
            bytes: 4 << 20,
        }
    }
}

/// How long the server keeps an unanswered pull.
const PULL_EXPIRES: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(1);

impl Bus {
    /// Reads `stream` through the consumer `durable`. Never ends; heals whatever breaks, by making the consumer again
    /// if need be. Every message must be answered, or it comes again after a minute.
    pub fn consume(
        &self,
        stream: Stream,
        durable: &'static str,
        options: Options,
    ) -> impl futures::Stream<Item = Delivery> + Send + 'static {
        let bus = self.clone();
        let name = self.layout.name(stream);
        let filter = self
            .layout
            .writer(stream)
            .filter(|(writer, _)| *writer == durable)
            .and_then(|(_, filter)| filter);
        let config = topology::durable(durable, filter);
        endless(
            bus,
            name,
            options,
            Resume::new(move |_| (Some(durable), config.clone())),
        )
    }
}

type Describe = dyn Fn(Option<u64>) -> (Option<&'static str>, pull::Config) + Send + Sync;

/// How to get a consumer again after the one before broke: its durable name, if it has one, and its configuration,
/// given the last sequence that was read.
pub(crate) struct Resume {
    consumer: Box<Describe>,
}

impl Resume {
    pub(crate) fn new(
        consumer: impl Fn(Option<u64>) -> (Option<&'static str>, pull::Config) + Send + Sync + 'static,
    ) -> Self {
        Self {
            consumer: Box::new(consumer),
        }
    }
}

pub(crate) fn endless(
    bus: Bus,
    name: String,
    options: Options,
    resume: Resume,
) -> impl futures::Stream<Item = Delivery> + Send + 'static {
    async_stream::stream! {
        let mut last = None;
        loop {
            let consumer = match consumer(&bus, &name, &resume, last).await {
                Ok(consumer) => consumer,
                Err(error) => {
                    tracing::warn!(stream = name, error = format!("{error:#}"), "cannot reach a consumer; trying again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    continue;
                }
            };
            let mut failures = 0;
            while failures < 2 {
                let pull = pull(&consumer, options).await;
                let mut messages = match pull {
                    Ok(messages) => std::pin::pin!(messages),
                    Err(error) => {
                        tracing::debug!(stream = name, error = format!("{error:#}"), "a pull failed");
                        failures += 1;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                loop {
                    match messages.try_next().await {
                        Ok(Some(message)) => {
                            failures = 0;
                            match Delivery::new(bus.clone(), message) {
                                Ok(delivery) => {
                                    last = Some(delivery.stream_sequence());
                                    yield delivery;
                                }
                                Err(error) => tracing::error!(stream = name, error = format!("{error:#}"), "message without an origin"),
                            }
                        }
                        Ok(None) => break,
                        Err(error) => {
                            tracing::debug!(stream = name, %error, "a pull broke off");
                            failures += 1;
                            break;
                        }
                    }
                }
            }
            tracing::info!(stream = name, "looking for the consumer again");
        }
    }
    .boxed()
}

async fn pull(
    consumer: &PullConsumer,
    options: Options,
) -> anyhow::Result<
    impl futures::Stream<Item = Result<async_nats::jetstream::Message, async_nats::Error>>
    + Send
    + use<>,
> {
    consumer
        .batch()
        .max_messages(options.messages)
        .max_bytes(options.bytes)
        .expires(PULL_EXPIRES)
        .heartbeat(HEARTBEAT)
        .messages()
        .await
        .context("ask for messages")
}

async fn consumer(
    bus: &Bus,
    name: &str,
    resume: &Resume,
    last: Option<u64>,
) -> anyhow::Result<PullConsumer> {
    let (durable, config) = (resume.consumer)(last);
    let stream = match bus.consuming.get_stream(name).await {
        Ok(stream) => stream,
        Err(error) => {
            // A broker that lost its disk has none of our streams.
            topology::create(&bus.consuming, &bus.layout)
                .await
                .context("make the streams again")?;
            return Err(error).context("find the stream");
        }
    };
    match durable {
        Some(durable) => stream
            .get_or_create_consumer(durable, config)
            .await
            .context("find the durable consumer"),
        None => stream
            .create_consumer(config)
            .await
            .context("make a consumer"),
    }
}
