//! A message that was delivered again and again without an answer may be what kills its reader: it is handled alone, and put
//! aside when that does not end either.
//!
//! How often a message was delivered says little, because a store that was away also makes it come again. So whoever handles
//! such a message notes in SL_STATE that it begins and, by whatever way it went, that it came back. A note that is still
//! there tells of a reader that did not.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use serde::{Deserialize, Serialize};

use crate::Bus;
use crate::delivery::Delivery;
use crate::publish::{self, Outgoing};
use crate::stream::{Stream, trial_subject};

/// Deliveries from which on a message is handled alone.
const SUSPECT: u64 = 3;
/// Readers that may be lost with the message alone before it is put aside. A process can be killed for other reasons.
const MOST_LOST: u32 = 2;
const WITHIN: Duration = Duration::from_secs(3);
const LATER: Duration = Duration::from_secs(5);

/// Handling messages of which one may be the end of the process. Ask for one before anything is done with messages, even
/// unpacking, and [`end`](Self::end) it when they have been answered.
#[must_use]
pub struct Trial {
    bus: Option<Bus>,
    notes: Vec<String>,
}

/// Readers that began with a message alone and did not come back.
#[derive(Serialize, Deserialize)]
struct Note {
    /// When the broker took the message: its number may have been another's.
    published: u64,
    begun: u32,
}

impl Delivery {
    /// Whether it must be handled alone: delivered often without an answer, or only there to become a dead letter.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.deliveries() >= SUSPECT || self.condemned().is_some()
    }
}

impl Trial {
    /// Begins to handle `deliveries`, for which nothing is done unless one is suspect. `None`: nothing is left to do, what
    /// cost its readers is a dead letter of `service` now, and its companions come again.
    pub async fn begin(service: &'static str, deliveries: &[Delivery]) -> Option<Self> {
        let mut trial = Self { bus: None, notes: Vec::new() };
        for delivery in deliveries.iter().filter(|delivery| delivery.is_suspect()) {
            if !trial.add(service, delivery).await {
                for other in deliveries.iter().filter(|other| !std::ptr::eq(*other, delivery)) {
                    other.nak(LATER).await;
                }
                trial.end().await;
                return None;
            }
        }
        Some(trial)
    }

    /// False when the message is answered for already.
    async fn add(&mut self, service: &'static str, delivery: &Delivery) -> bool {
        if let Some(reason) = delivery.condemned() {
            delivery.bury(service, reason).await;
            return false;
        }
        let bus = delivery.bus();
        let subject = trial_subject(&bus.settings().namespace, service, delivery.stream(), delivery.stream_sequence());
        let begun = match begun(bus, &subject, delivery.published()).await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "cannot look up a suspect message; it comes again");
                delivery.nak(LATER).await;
                return false;
            }
        };
        if begun >= MOST_LOST {
            let reason = format!(
                "no reader came back from it: delivered {} times, the last {begun} times alone",
                delivery.deliveries()
            );
            if delivery.bury(service, &reason).await {
                forget(bus, &subject).await;
            }
            return false;
        }
        let note = Note { published: delivery.published(), begun: begun + 1 };
        if let Err(error) = write(bus, &subject, delivery, &note).await {
            tracing::debug!(error = format!("{error:#}"), "cannot note a suspect message; it comes again");
            delivery.nak(LATER).await;
            return false;
        }
        self.bus = Some(bus.clone());
        self.notes.push(subject);
        true
    }

    /// Everything was answered, and this process lives.
    pub async fn end(self) {
        let Some(bus) = self.bus else { return };
        for note in &self.notes {
            forget(&bus, note).await;
        }
    }
}

async fn state(bus: &Bus) -> anyhow::Result<async_nats::jetstream::stream::Stream<()>> {
    let name = Stream::State.name(&bus.settings().namespace);
    bus.publishing().jetstream.get_stream_no_info(name).await.context("name SL_STATE")
}

async fn begun(bus: &Bus, subject: &str, published: u64) -> anyhow::Result<u32> {
    match state(bus).await?.get_last_raw_message_by_subject(subject).await {
        Ok(message) => {
            let note: Option<Note> = serde_json::from_slice(&message.payload).ok();
            Ok(note.filter(|note| note.published == published).map_or(0, |note| note.begun))
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
        Err(error) => Err(error).context("read a note"),
    }
}

async fn write(bus: &Bus, subject: &str, delivery: &Delivery, note: &Note) -> anyhow::Result<()> {
    let payload = serde_json::to_vec(note).context("encode a note")?;
    // A consumer that was made again counts deliveries from one.
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let id = format!("{subject}-{}-{now}", delivery.deliveries());
    publish::publish(bus, Stream::State, subject.to_owned(), Outgoing::new(id, payload).within(WITHIN)).await?;
    Ok(())
}

/// A note that stays by mistake makes one more reader count as lost, no more.
async fn forget(bus: &Bus, subject: &str) {
    let forget = async {
        let state = state(bus).await?;
        let note = state.get_last_raw_message_by_subject(subject).await.context("find a note")?;
        state.delete_message(note.sequence).await.context("delete a note")?;
        anyhow::Ok(())
    };
    if let Err(error) = forget.await {
        tracing::debug!(error = format!("{error:#}"), subject, "cannot take a note back");
    }
}
