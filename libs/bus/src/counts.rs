//! Counting where things happen: before a reader acknowledges, it writes down in SL_STATE what became of the messages.
//!
//! One message a stream holds the count of all replicas. Each writes it over with the number of the one that it knew, and
//! begins anew when another replica was faster; since a count knows which messages are in it, doing it twice changes nothing.
//! A replica that is killed between the count and the acknowledgement costs no count, and the message that comes again is
//! not counted again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::HeaderMap;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use tokio::time::Instant;

use crate::Bus;
use crate::attempt::{Attempt, attempt};
use crate::look::{progress, unix_nanos};
use crate::stream::{Stream, counts_subject};
use crate::tally::{Fate, Tally};

const WITHIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// A message, how it ended, and the items inside.
pub(crate) type Ended = (u64, Fate, u64);

/// What this process knows of the counts, by the name of the stream.
#[derive(Default)]
pub(crate) struct Counts {
    known: Mutex<HashMap<Stream, Arc<tokio::sync::Mutex<Option<Known>>>>>,
}

struct Known {
    tally: Tally,
    /// Where it is in SL_STATE; 0 when it was never written down.
    sequence: u64,
}

impl Counts {
    fn of(&self, stream: Stream) -> Arc<tokio::sync::Mutex<Option<Known>>> {
        Arc::clone(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(stream).or_default())
    }

    /// The stream may be another one now.
    pub(crate) async fn forget(&self, stream: Stream) {
        *self.of(stream).lock().await = None;
    }
}

/// Writes down how messages of `stream` ended. Nothing may be acknowledged before.
pub(crate) async fn count(bus: &Bus, stream: Stream, ended: &[Ended]) -> anyhow::Result<()> {
    let slot = bus.counts().of(stream);
    let mut known = slot.lock().await;
    let deadline = Instant::now() + WITHIN;
    loop {
        let Known { tally, sequence } = match known.take() {
            Some(known) => known,
            None => load(bus, stream).await?,
        };
        let mut next = tally.clone();
        let mut changed = false;
        for (number, fate, items) in ended {
            changed |= next.add(*number, *fate, *items);
        }
        if !changed {
            *known = Some(Known { tally, sequence });
            return Ok(());
        }
        if next.is_long() {
            next.close(acknowledged(bus, stream).await?);
        }
        match write(bus, stream, &next, sequence, deadline).await? {
            Attempt::Acknowledged(sequence) => {
                *known = Some(Known { tally: next, sequence });
                return Ok(());
            }
            // Most often, another replica has counted meanwhile.
            _ if Instant::now() + PAUSE < deadline => tokio::time::sleep(PAUSE).await,
            _ => anyhow::bail!("the counts of {stream} cannot be written"),
        }
    }
}

/// The count as it is written down; a fresh one where there is none.
pub(crate) async fn read(bus: &Bus, stream: Stream) -> anyhow::Result<Tally> {
    Ok(load(bus, stream).await?.tally)
}

async fn load(bus: &Bus, stream: Stream) -> anyhow::Result<Known> {
    let namespace = &bus.settings().namespace;
    let context = &bus.publishing().jetstream;
    let counted = context.get_stream(stream.name(namespace)).await.with_context(|| format!("look at {stream}"))?;
    let created = unix_nanos(counted.cached_info().created);
    let state = context.get_stream_no_info(Stream::State.name(namespace)).await.context("name SL_STATE")?;
    let (tally, sequence) = match state.get_last_raw_message_by_subject(&counts_subject(namespace, stream)).await {
        // What cannot be read is not written over: a newer release may have written it.
        Ok(message) => {
            let tally =
                serde_json::from_slice(&message.payload).with_context(|| format!("read the counts of {stream}"))?;
            (Some(tally), message.sequence)
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => (None, 0),
        Err(error) => return Err(error).with_context(|| format!("read the counts of {stream}")),
    };
    let tally = match tally.filter(|tally: &Tally| tally.created == created) {
        Some(tally) => tally,
        None => Tally::begin(created, acknowledged(bus, stream).await?),
    };
    Ok(Known { tally, sequence })
}

async fn write(bus: &Bus, stream: Stream, tally: &Tally, expected: u64, deadline: Instant) -> anyhow::Result<Attempt> {
    let payload = serde_json::to_vec(tally).context("encode the counts")?;
    let mut headers = HeaderMap::new();
    headers.insert(EXPECTED, expected.to_string());
    let subject = counts_subject(&bus.settings().namespace, stream);
    Ok(attempt(bus.publishing(), &subject, &headers, &payload.into(), deadline).await)
}

/// Up to where everything is answered for.
async fn acknowledged(bus: &Bus, stream: Stream) -> anyhow::Result<u64> {
    Ok(progress(bus, stream).await?.stored)
}
