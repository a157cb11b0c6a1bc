//! Publishing: success means that the broker has acknowledged the message, and a retry is the same message.
//!
//! What is not acknowledged in time is in one of two states, and callers must be able to tell them apart: it was never
//! sent ([`PublishError::Unavailable`]), or nobody knows ([`PublishError::Unknown`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::attempt::{Attempt, attempt};
use crate::stream::Stream;
use crate::{Bus, room};

const DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
/// A stream that is full is full for a while, and everything that waits for it is sent again each time.
const FULL_PAUSE: Duration = Duration::from_millis(300);
const WINDOW_MESSAGES: u32 = 2_048;
const WINDOW_KIB: u32 = 64 << 10;
/// A stream may have one of so many parts of the window.
const SHARES: u32 = 4;

/// A message on its way out.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// `Nats-Msg-Id`: within two minutes the broker takes one message with it.
    pub id: String,
    pub payload: Bytes,
    pub headers: HeaderMap,
    /// How long publishing may take, waiting for room and repeating included.
    pub within: Duration,
}

impl Outgoing {
    /// A message that is given up after five seconds.
    pub fn new(id: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { id: id.into(), payload: payload.into(), headers: HeaderMap::new(), within: DEADLINE }
    }

    /// Sets a header. Characters that NATS does not allow in one become spaces.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.headers.insert(name, value.as_ref().replace(['\r', '\n'], " "));
        self
    }

    /// Sets how long publishing may take.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }
}

/// Why a message is not known to be in its stream.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It was not sent, or the broker said that it did not take it. Sending it again later is safe.
    #[error("the broker cannot take messages: {0}")]
    Unavailable(String),
    /// It was sent, but no answer came. It may be in the stream; sending it again with the same id within two minutes
    /// is safe.
    #[error("the broker did not answer in time")]
    Unknown,
    /// The broker will never take it as it is.
    #[error("the broker refused the message: {0}")]
    Refused(String),
}

impl PublishError {
    /// Whether the same message may pass later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// What may be on its way at once, in all and to each stream.
pub(crate) struct Window {
    all: Share,
    streams: Mutex<BTreeMap<Stream, Share>>,
}

/// Messages and bytes that may be on their way.
#[derive(Clone)]
struct Share {
    messages: Arc<Semaphore>,
    kib: Arc<Semaphore>,
}

type Permit = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Share {
    /// One of so many.
    fn of(shares: u32) -> Self {
        let of = |whole: u32| Arc::new(Semaphore::new(usize::try_from(whole / shares).unwrap_or(1)));
        Self { messages: of(WINDOW_MESSAGES), kib: of(WINDOW_KIB) }
    }

    async fn room(&self, kib: u32) -> Option<Permit> {
        let message = Arc::clone(&self.messages).acquire_owned().await.ok()?;
        let bytes = Arc::clone(&self.kib).acquire_many_owned(kib).await.ok()?;
        Some((message, bytes))
    }
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { all: Share::of(1), streams: Mutex::default() }
    }

    /// A full stream keeps what waits for it on its way: so no stream gets more than its share.
    async fn room(&self, stream: Stream, bytes: usize) -> Option<(Permit, Permit)> {
        let most = WINDOW_KIB / SHARES;
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(most).min(most);
        let share = self.share(stream);
        Some((share.room(kib).await?, self.all.room(kib).await?))
    }

    fn share(&self, stream: Stream) -> Share {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.entry(stream).or_insert_with(|| Share::of(SHARES)).clone()
    }
}

/// Publishes and waits for the acknowledgement; repeats with the same id until the message's time is over. Where the stream
/// is full, what its reader has handled makes room; where nothing is handled, it is waited for, but for dead letters: their
/// originals are safe where they are.
pub(crate) async fn publish(bus: &Bus, stream: Stream, subject: String, message: Outgoing) -> Result<(), PublishError> {
    let deadline = Instant::now() + message.within;
    let room = tokio::time::timeout_at(deadline, bus.window().room(stream, message.payload.len())).await;
    let Ok(Some(_room)) = room else {
        return Err(PublishError::Unavailable("too many messages wait for the broker".to_owned()));
    };
    let mut headers = message.headers;
    headers.insert("Nats-Msg-Id", message.id);
    if let Some(traceparent) = telemetry::context::current() {
        headers.insert(telemetry::context::HEADER, traceparent);
    }
    let mut unknown = false;
    loop {
        let (begun, mut pause) = (Instant::now(), PAUSE);
        let reason = match attempt(bus.publishing(), &subject, &headers, &message.payload, deadline).await {
            Attempt::Acknowledged(_) => {
                bus.has_room(stream);
                return Ok(());
            }
            Attempt::Full(reason) => {
                if room::make_room(bus, stream, begun).await {
                    continue;
                }
                pause = FULL_PAUSE;
                bus.is_full(stream);
                if stream == Stream::Dead {
                    return Err(PublishError::Unavailable(reason));
                }
                reason
            }
            Attempt::Refused(reason) if !unknown => return Err(PublishError::Refused(reason)),
            Attempt::Declined(reason) | Attempt::Refused(reason) => reason,
            Attempt::NoAnswer => {
                unknown = true;
                String::new()
            }
        };
        if Instant::now() + pause >= deadline {
            return Err(if unknown { PublishError::Unknown } else { PublishError::Unavailable(reason) });
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::{SHARES, WINDOW_MESSAGES, Window};
    use crate::stream::Stream;

    #[test]
    fn what_waits_for_a_full_stream_leaves_room_for_the_others() {
        let window = Window::new();
        let share = usize::try_from(WINDOW_MESSAGES / SHARES).unwrap();
        let held: Vec<_> = (0..share).map(|_| window.room(Stream::Logs(0), 1).now_or_never().unwrap()).collect();
        assert!(window.room(Stream::Logs(0), 1).now_or_never().is_none());
        assert!(window.room(Stream::Logs(1), 1).now_or_never().is_some());
        drop(held);
    }
}
