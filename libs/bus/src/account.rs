//! The account of each stream: received = stored + passed over + dead + in flight + lost, each counted for itself; and how
//! much room a stream has.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::{self, consumer};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio::time::Instant;

use crate::delivery::unix_nanos;
use crate::stream::Stream;
use crate::{Bus, counts};

/// One stream in messages since it was made. Where nobody has to handle them, only `received` counts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Account {
    /// The name on the server.
    pub stream: String,
    /// Messages that the broker acknowledged.
    pub received: u64,
    /// Of them, those that the reader has stored or handled, as it counted.
    pub stored: u64,
    /// Items inside of the stored.
    pub stored_items: u64,
    /// Those that held nothing to be stored.
    pub passed: u64,
    /// Those that became dead letters, as their reader counted.
    pub dead: u64,
    /// Those that are kept and that nobody has answered for.
    pub in_flight: u64,
    /// Not yet delivered to the reader.
    pub pending: u64,
    /// Delivered and not acknowledged; counted already, maybe.
    pub ack_pending: u64,
    /// Those that are gone without an answer: evicted, purged or deleted.
    pub lost: u64,
    /// Those that were acknowledged and that nobody counted.
    pub unexplained: u64,
    /// Those that were acknowledged before counting began.
    pub uncounted: u64,
    /// The durable consumer that all this is about; none where messages are only followed.
    pub writer: Option<&'static str>,
    /// The oldest message that is still kept.
    pub first_sequence: u64,
    pub bytes: u64,
    pub max_bytes: u64,
}

/// How much room a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Messages that are kept: all that its reader has not handled, and maybe some that it has.
    pub messages: u64,
    /// Their bytes.
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

/// Streams that are looked at at once for a whole account: each takes three or four questions.
const AT_ONCE: usize = 8;
/// Share of a stream, in percent, that may wait for its writer before new data is refused.
const REFUSE_ABOVE_PERCENT: u64 = 70;
/// Share above which what is handled is removed, and how much of it then stays for replay.
const TRIM_ABOVE_PERCENT: u64 = 60;
const TRIM_TO_PERCENT: u64 = 50;
/// Messages are removed by their average size, which may take a few steps.
const TRIM_STEPS: usize = 4;

impl Backlog {
    /// Whether new data must be refused, so that there is always room for what is on its way.
    #[must_use]
    pub fn must_refuse(&self) -> bool {
        self.is_above(REFUSE_ABOVE_PERCENT)
    }

    fn is_above(&self, percent: u64) -> bool {
        self.pending_bytes.saturating_mul(100) > self.max_bytes.saturating_mul(percent)
    }

    fn of(info: &jetstream::stream::Info) -> Self {
        Self {
            messages: info.state.messages,
            pending_bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).unwrap_or_default(),
        }
    }
}

pub(crate) async fn account(bus: &Bus) -> anyhow::Result<Vec<Account>> {
    let streams = Stream::all(bus.settings().shards).filter(|stream| *stream != Stream::State);
    futures::stream::iter(streams).map(|stream| one(bus, stream)).buffered(AT_ONCE).try_collect().await
}

/// The order matters: what is looked at later may only know more, so that a moment's difference is never a loss.
pub(crate) async fn one(bus: &Bus, stream: Stream) -> anyhow::Result<Account> {
    let (info, consumer) = look(bus, stream).await?;
    let state = &info.state;
    let account = Account {
        stream: info.config.name.clone(),
        received: state.last_sequence,
        writer: stream.writer().map(|writer| writer.durable),
        first_sequence: state.first_sequence,
        bytes: state.bytes,
        max_bytes: u64::try_from(info.config.max_bytes).unwrap_or_default(),
        ..Account::default()
    };
    if stream.writer().is_none() {
        return Ok(account);
    }
    let tally = counts::read(bus, stream).await.with_context(|| format!("read the counts of {stream}"))?;
    let last = state.last_sequence.max(tally.newest());
    // Of a stream that lost its end, numbers are used again; of one that is empty, the first is the next.
    let gone = state.first_sequence.saturating_sub(1).min(last);
    let (floor, pending, ack_pending) = match &consumer {
        Some(consumer) => (
            consumer.ack_floor.stream_sequence.min(last),
            consumer.num_pending,
            u64::try_from(consumer.num_ack_pending).unwrap_or(u64::MAX),
        ),
        None => (0, state.messages, 0),
    };
    let settled = floor.max(gone);
    let open = tally.open(settled + 1, last);
    let in_flight = open.min(pending.saturating_add(ack_pending));
    Ok(Account {
        received: last,
        stored: tally.stored.messages,
        stored_items: tally.stored.items,
        passed: tally.passed,
        dead: tally.dead.messages,
        in_flight,
        pending,
        ack_pending,
        lost: tally.lost + tally.open(1, gone) + (open - in_flight),
        unexplained: tally.open(gone + 1, settled),
        uncounted: tally.uncounted,
        ..account
    })
}

/// The room that `stream` has, after what is handled was removed where little was left.
pub(crate) async fn backlog(bus: &Bus, stream: Stream) -> anyhow::Result<Backlog> {
    let mut backlog = Backlog::of(&info(bus, stream).await?);
    for _ in 0..TRIM_STEPS {
        if stream.writer().is_none() || !backlog.is_above(TRIM_ABOVE_PERCENT) || trim(bus, stream).await? == 0 {
            break;
        }
        backlog = Backlog::of(&info(bus, stream).await?);
    }
    Ok(backlog)
}

/// When this process tried to make room in streams, and whether there was any to be made.
#[derive(Default)]
pub(crate) struct Rooms(tokio::sync::Mutex<BTreeMap<Stream, (Instant, bool)>>);

/// How long it is believed that nothing is handled in a full stream.
const STILL_FULL: Duration = Duration::from_millis(200);

/// Removes what is handled from `stream`, which was full at `seen`; says whether there is room now. One of many publishers
/// does it for all.
pub(crate) async fn make_room(bus: &Bus, stream: Stream, seen: Instant) -> bool {
    if stream.writer().is_none() {
        return false;
    }
    let mut rooms = bus.rooms().0.lock().await;
    match rooms.get(&stream) {
        Some((at, true)) if *at > seen => return true,
        Some((at, false)) if at.elapsed() < STILL_FULL => return false,
        _ => {}
    }
    let made = match trim(bus, stream).await {
        Ok(removed) => removed > 0,
        Err(error) => {
            tracing::warn!(%stream, error = format!("{error:#}"), "cannot make room");
            false
        }
    };
    rooms.insert(stream, (Instant::now(), made));
    made
}

/// Removes the oldest messages, but none that is not acknowledged; says how many.
async fn trim(bus: &Bus, stream: Stream) -> anyhow::Result<u64> {
    let (info, consumer) = look(bus, stream).await?;
    let state = &info.state;
    let handled = consumer.map_or(0, |consumer| consumer.ack_floor.stream_sequence);
    if state.messages == 0 || handled < state.first_sequence {
        return Ok(0);
    }
    let kept = u64::try_from(info.config.max_bytes).unwrap_or_default().saturating_mul(TRIM_TO_PERCENT) / 100;
    let excess = u128::from(state.bytes.saturating_sub(kept)) * u128::from(state.messages);
    let messages = u64::try_from(excess / u128::from(state.bytes.max(1))).unwrap_or(u64::MAX).max(1);
    let end = state.first_sequence.saturating_add(messages).min(handled + 1);
    let handle = bus.publishing().jetstream.get_stream_no_info(&info.config.name).await.context("name a stream")?;
    let purged = handle.purge().sequence(end).await.with_context(|| format!("remove what is handled from {stream}"))?;
    tracing::debug!(%stream, end, purged = purged.purged, "removed what is handled");
    Ok(purged.purged)
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

async fn look(bus: &Bus, stream: Stream) -> anyhow::Result<(jetstream::stream::Info, Option<consumer::Info>)> {
    let info = info(bus, stream).await?;
    let Some(writer) = stream.writer() else { return Ok((info, None)) };
    let handle = bus.publishing().jetstream.get_stream_no_info(&info.config.name).await.context("name a stream")?;
    match handle.consumer_info(writer.durable).await {
        Ok(consumer) => Ok((info, Some(consumer))),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok((info, None)),
        Err(error) => Err(error).with_context(|| format!("look at consumer {} of {stream}", writer.durable)),
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
