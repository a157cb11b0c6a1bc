//! How much room a stream has, and making some: what is handled may go, nothing else.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tokio::time::Instant;

use crate::Bus;
use crate::look::{info, look};
use crate::stream::Stream;

/// How much room a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Messages that are kept: all that its reader has not handled, and maybe some that it has.
    pub messages: u64,
    /// Bytes of all that is kept.
    pub pending_bytes: u64,
    pub max_bytes: u64,
}

/// Share of a stream, in percent, that may wait for its writer before new data is refused.
const REFUSE_ABOVE_PERCENT: u64 = 70;
/// Share above which what is handled is removed, and how much of it then stays for replay.
const TRIM_ABOVE_PERCENT: u64 = 60;
const TRIM_TO_PERCENT: u64 = 50;
/// Bytes of the largest message.
const LARGEST: u64 = 1 << 20;
/// Messages are removed by their average size, which may take a few steps.
const TRIM_STEPS: usize = 4;

impl Backlog {
    /// Whether new data must be refused, so that there is always room for what is on its way.
    #[must_use]
    pub fn must_refuse(&self) -> bool {
        self.is_above(REFUSE_ABOVE_PERCENT)
    }

    /// Whether the largest message may find no room.
    pub(crate) fn is_full(&self) -> bool {
        self.pending_bytes.saturating_add(LARGEST.min(self.max_bytes / 2)) > self.max_bytes
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
    let removed = if forgets_what_is_held(&bus.server_version()) {
        delete(bus, &info.config.name, state.first_sequence..end).await
    } else {
        purge(bus, &info.config.name, end).await
    };
    let removed = removed.with_context(|| format!("remove what is handled from {stream}"))?;
    tracing::debug!(%stream, end, removed, "removed what is handled");
    Ok(removed)
}

async fn purge(bus: &Bus, stream: &str, end: u64) -> anyhow::Result<u64> {
    let handle = bus.publishing().jetstream.get_stream_no_info(stream).await.context("name a stream")?;
    Ok(handle.purge().sequence(end).await?.purged)
}

/// Messages that are deleted one by one in a step, and how many at once.
const DELETED_AT_MOST: u64 = 1_000;
const DELETED_AT_ONCE: usize = 32;

/// As [`purge`], for a server that cannot be asked to.
async fn delete(bus: &Bus, stream: &str, sequences: Range<u64>) -> anyhow::Result<u64> {
    let end = sequences.end.min(sequences.start.saturating_add(DELETED_AT_MOST));
    let subject = format!("STREAM.MSG.DELETE.{stream}");
    let deletions = (sequences.start..end).map(|sequence| {
        let request = json!({"seq": sequence, "no_erase": true});
        let subject = subject.clone();
        async move {
            let answer: serde_json::Value = bus.publishing().jetstream.request(subject, &request).await?;
            // What is gone already was removed by a neighbour.
            Ok::<u64, anyhow::Error>(u64::from(answer["success"] == true))
        }
    });
    stream::iter(deletions).buffered(DELETED_AT_ONCE).try_fold(0, async |sum, one| Ok(sum + one)).await
}

/// Before 2.9.15 a purge of a part made the server forget which messages its readers hold: what a reader gave back, or held
/// when it died, never came again (nats-server, pull request 3892).
fn forgets_what_is_held(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    let version: [u32; 3] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
    version < [2, 9, 15]
}

#[cfg(test)]
mod tests {
    use super::{Backlog, forgets_what_is_held};

    #[test]
    fn parts_are_purged_only_where_nothing_is_forgotten_by_it() {
        for version in ["2.9.10", "2.9.14", "2.8.4"] {
            assert!(forgets_what_is_held(version), "{version}");
        }
        for version in ["2.9.15", "2.10.0-beta.3", "2.12.1", "2.15.2"] {
            assert!(!forgets_what_is_held(version), "{version}");
        }
    }

    #[test]
    fn new_data_is_refused_above_seventy_percent() {
        let backlog = |pending_bytes| Backlog { messages: 1, pending_bytes, max_bytes: 1_000 };
        assert!(!backlog(700).must_refuse());
        assert!(backlog(701).must_refuse());
    }
}
