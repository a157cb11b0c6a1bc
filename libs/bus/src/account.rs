//! The account of each stream: received = stored + passed over + dead + in flight + lost, each counted for itself.

use anyhow::Context as _;
use async_nats::jetstream::stream;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use crate::look::look;
use crate::stream::Stream;
use crate::tally::Fate;
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

/// Streams that are looked at at once for a whole account: each takes three or four questions.
const AT_ONCE: usize = 8;
/// Messages that are written down at a time.
const NOTED_AT_ONCE: usize = 10_000;

pub(crate) async fn account(bus: &Bus) -> anyhow::Result<Vec<Account>> {
    let streams = Stream::all(bus.settings().shards).filter(|stream| *stream != Stream::State);
    futures::stream::iter(streams).map(|stream| one(bus, stream)).buffered(AT_ONCE).try_collect().await
}

/// The order matters: what is looked at later may only know more, so that a moment's difference is never a loss. Nor is what
/// the server says about its consumer: how much that has before it is off by some after messages were deleted.
pub(crate) async fn one(bus: &Bus, stream: Stream) -> anyhow::Result<Account> {
    let (info, consumer) = look(bus, stream).await?;
    let deleted = deleted(bus, &info).await?;
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
    let is_lost = |sequence: &&u64| **sequence > settled && tally.open(**sequence, **sequence) > 0;
    let lost = u64::try_from(deleted.iter().filter(is_lost).count()).unwrap_or(u64::MAX).min(open);
    Ok(Account {
        received: last,
        stored: tally.stored.messages,
        stored_items: tally.stored.items,
        passed: tally.passed,
        dead: tally.dead.messages,
        in_flight: open - lost,
        pending,
        ack_pending,
        lost: tally.open(1, gone) + lost,
        unexplained: tally.unexplained + tally.open(gone + 1, settled),
        uncounted: tally.uncounted,
        ..account
    })
}

/// Sequences in the middle of the stream that are no more.
async fn deleted(bus: &Bus, info: &stream::Info) -> anyhow::Result<Vec<u64>> {
    if info.state.deleted_count.unwrap_or_default() == 0 {
        return Ok(Vec::new());
    }
    let name = &info.config.name;
    let handle = bus.publishing().jetstream.get_stream_no_info(name).await.context("name a stream")?;
    let looked = handle.info_builder().with_deleted(true).fetch().await;
    let looked = looked.with_context(|| format!("look at what was deleted from {name}"))?;
    Ok(looked.info.state.deleted.clone().unwrap_or_default())
}

/// Writes down which kept messages of `stream` were acknowledged and not counted: once they are removed, they would look as
/// if they were lost.
pub(crate) async fn note(bus: &Bus, stream: Stream) -> anyhow::Result<()> {
    let (info, Some(consumer)) = look(bus, stream).await? else { return Ok(()) };
    let tally = counts::read(bus, stream).await?;
    let (first, floor) = (info.state.first_sequence, consumer.ack_floor.stream_sequence);
    if tally.open(first, floor) == 0 {
        return Ok(());
    }
    let uncounted = tally.uncounted(first, floor, NOTED_AT_ONCE);
    let ended: Vec<counts::Ended> = uncounted.into_iter().map(|sequence| (sequence, Fate::Unexplained, 0)).collect();
    counts::count(bus, stream, &ended).await
}
