//! What the server says about a stream and the consumer that must handle it.

use anyhow::Context as _;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::{self, consumer};
use time::OffsetDateTime;

use crate::Bus;
use crate::stream::Stream;

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

pub(crate) async fn progress(bus: &Bus, stream: Stream) -> anyhow::Result<Progress> {
    let (info, consumer) = look(bus, stream).await?;
    let (stored, delivered) =
        consumer.map_or((0, 0), |consumer| (consumer.ack_floor.stream_sequence, consumer.delivered.stream_sequence));
    let oldest = (info.state.messages > 0).then(|| unix_nanos(info.state.first_timestamp));
    Ok(Progress { stored, delivered, last: info.state.last_sequence, oldest })
}

pub(crate) async fn info(bus: &Bus, stream: Stream) -> anyhow::Result<jetstream::stream::Info> {
    let name = stream.name(&bus.settings().namespace);
    let handle =
        bus.publishing().jetstream.get_stream(&name).await.with_context(|| format!("look at stream {name}"))?;
    Ok(handle.cached_info().clone())
}

pub(crate) async fn look(
    bus: &Bus,
    stream: Stream,
) -> anyhow::Result<(jetstream::stream::Info, Option<consumer::Info>)> {
    let info = info(bus, stream).await?;
    let Some(writer) = stream.writer() else { return Ok((info, None)) };
    let handle = bus.publishing().jetstream.get_stream_no_info(&info.config.name).await.context("name a stream")?;
    match handle.consumer_info(writer.durable).await {
        Ok(consumer) => Ok((info, Some(consumer))),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok((info, None)),
        Err(error) => Err(error).with_context(|| format!("look at consumer {} of {stream}", writer.durable)),
    }
}

pub(crate) fn unix_nanos(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos()).unwrap_or_default()
}
