//! Messages that must wait step out of the way: a stream is freed only up to the oldest message that nobody has answered for,
//! so one that waits at its place would in the end keep everybody from publishing.
//!
//! Such a message is published again at the end of its own stream, and answered for where it was. Headers say where and since
//! when it was first there, so that its age, its id and the name of its dead letter stay the same, and whoever reads along
//! passes over what it has met before. Where order matters, which is in every stream that is not telemetry, only what is
//! there to become a dead letter may move: nobody looks inside any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::Info;

use crate::Bus;
use crate::delivery::Delivery;
use crate::headers::{DEFERRED_DEAD, DEFERRED_ID, DEFERRED_SEQUENCE, DEFERRED_SINCE};
use crate::look::look;
use crate::publish::{self, Outgoing};
use crate::stream::Stream;

/// The first wait: most often, another replica can take it.
const SOON: Duration = Duration::from_secs(5);
/// The shortest wait, where a stream would be full sooner, and the one from which on none is short any more.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// How much that is handled may lie behind a message that waits, in percent of what its stream may hold.
const MOST_BEHIND_PERCENT: u64 = 10;
/// How long publishing may take: the reader waits meanwhile.
const WITHIN: Duration = Duration::from_secs(2);
/// How long it is believed what a stream holds. Messages that wait come in crowds.
const BELIEVED: Duration = Duration::from_secs(1);

/// What this process knows of the streams in which messages wait.
#[derive(Default)]
pub(crate) struct Waiting(tokio::sync::Mutex<BTreeMap<Stream, Known>>);

struct Known {
    at: Instant,
    held_up: HeldUp,
    pause: Option<Pause>,
}

/// How long a message may wait before as much lies behind it as may, where that is less than it otherwise would.
#[derive(Clone, Copy)]
struct Pause {
    length: Duration,
    since: Instant,
}

impl Pause {
    /// After a wait of `waited` by whose end so much lay behind the message.
    fn after(waited: Duration, percent: u64, now: Instant) -> Self {
        let factor = u32::try_from(percent / MOST_BEHIND_PERCENT).unwrap_or(u32::MAX).max(1);
        Self { length: (waited / factor).saturating_mul(2).clamp(SHORTEST, LONGEST), since: now }
    }

    /// Where nothing was held up: twice as long, once it has been kept for its own length. In the end there is none.
    fn relaxed(self, now: Instant) -> Option<Self> {
        if now.saturating_duration_since(self.since) < self.length {
            return Some(self);
        }
        Some(Self { length: self.length * 2, since: now }).filter(|pause| pause.length < LONGEST)
    }
}

/// What a stream keeps for one message's sake.
#[derive(Clone, Copy)]
struct HeldUp {
    delivered: u64,
    unanswered: u64,
    messages: u64,
    bytes: u64,
    max_bytes: u64,
}

impl HeldUp {
    fn of(info: &Info, consumer: &consumer::Info) -> Self {
        Self {
            delivered: consumer.delivered.stream_sequence,
            unanswered: u64::try_from(consumer.num_ack_pending).unwrap_or_default(),
            messages: info.state.messages,
            bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).unwrap_or_default(),
        }
    }

    /// What is handled behind `sequence`, in percent of what the stream may hold. For the oldest that waits it is exact, but
    /// for the sizes; for others it is less, and they become the oldest.
    fn percent_behind(self, sequence: u64) -> u64 {
        let behind = self.delivered.saturating_sub(sequence).saturating_sub(self.unanswered).min(self.messages);
        let bytes = u128::from(self.bytes) * u128::from(behind) / u128::from(self.messages.max(1));
        u64::try_from(bytes * 100 / u128::from(self.max_bytes.max(1))).unwrap_or(100)
    }
}

impl Delivery {
    /// Gives it to somebody again after `delay`, sooner where that is not known to be of no use. Where it holds up its stream,
    /// it goes to the end of it. With a reason, it is only there to become a dead letter.
    pub(crate) async fn wait(&self, delay: Duration, dead: Option<&str>) {
        let stream = self.counted_in().filter(|stream| dead.is_some() || stream.is_signal());
        let Some(stream) = stream else { return self.nak(delay).await };
        if !self.redelivered() {
            let pause = if self.has_waited() { self.pause(stream).await.unwrap_or(delay) } else { SOON };
            return self.nak(pause.min(delay)).await;
        }
        if self.holds_up(stream).await && self.step_aside(stream, dead).await {
            return;
        }
        self.nak(self.pause(stream).await.unwrap_or(delay).min(delay)).await;
    }

    async fn pause(&self, stream: Stream) -> Option<Duration> {
        Some(self.bus().waiting().0.lock().await.get(&stream)?.pause?.length)
    }

    async fn holds_up(&self, stream: Stream) -> bool {
        let bus = self.bus();
        let mut waiting = bus.waiting().0.lock().await;
        let pause = waiting.get(&stream).and_then(|known| known.pause);
        let (at, held_up) = match waiting.get(&stream).filter(|known| known.at.elapsed() < BELIEVED) {
            Some(known) => (known.at, known.held_up),
            None => match look(bus, stream).await {
                Ok((info, Some(consumer))) => (Instant::now(), HeldUp::of(&info, &consumer)),
                Ok((_, None)) => return false,
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), %stream, "cannot look where a message waits");
                    return false;
                }
            },
        };
        let percent = held_up.percent_behind(self.stream_sequence());
        let is_held_up = percent >= MOST_BEHIND_PERCENT;
        let now = Instant::now();
        let pause = match pause {
            _ if is_held_up => Some(Pause::after(self.waited(), percent, now)),
            Some(pause) => pause.relaxed(now),
            None => None,
        };
        waiting.insert(stream, Known { at, held_up, pause });
        is_held_up
    }

    /// How long it has been at this place.
    fn waited(&self) -> Duration {
        let published = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.published());
        SystemTime::now().duration_since(published).unwrap_or_default()
    }

    /// False where it stays at its place, unanswered. What goes wrong in between only makes it twice, as any redelivery does.
    async fn step_aside(&self, stream: Stream, dead: Option<&str>) -> bool {
        let copy = Box::pin(publish::publish(self.bus(), stream, self.subject().to_owned(), self.copy(dead)));
        if let Err(error) = copy.await {
            tracing::warn!(%error, %stream, sequence = self.stream_sequence(), "a message that waits holds up its stream");
            return false;
        }
        tracing::debug!(%stream, sequence = self.stream_sequence(), "a message that waits went to the end of its stream");
        self.bus().metrics().deferred.inc();
        // Its copy has a fate of its own.
        Box::pin(self.pass()).await;
        true
    }

    fn copy(&self, dead: Option<&str>) -> Outgoing {
        let id = format!("deferred-{}-{}-{}", self.stream(), self.stream_sequence(), self.published());
        let headers: HeaderMap = self.headers().cloned().unwrap_or_default();
        let copy = Outgoing { headers, ..Outgoing::new(id, self.payload().clone()).within(WITHIN) }
            .header(DEFERRED_SINCE, self.since().to_string())
            .header(DEFERRED_SEQUENCE, self.first_sequence().to_string())
            .header(DEFERRED_ID, self.id());
        match dead {
            Some(reason) => copy.header(DEFERRED_DEAD, reason),
            None => copy,
        }
    }

    /// Whether it was in this stream before and had to wait: whoever reads along has met it at its first place.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        self.header(DEFERRED_SINCE).is_some()
    }

    /// Why it must become a dead letter, where that was found out before and there was no room.
    pub(crate) fn condemned(&self) -> Option<&str> {
        self.header(DEFERRED_DEAD)
    }

    /// The headers that it had at its first place: who publishes a dead letter again must not find it condemned.
    pub(crate) fn first_headers(&self) -> HeaderMap {
        let mut first = HeaderMap::new();
        let deferred = [DEFERRED_SINCE, DEFERRED_SEQUENCE, DEFERRED_ID, DEFERRED_DEAD];
        for (name, values) in self.headers().into_iter().flat_map(HeaderMap::iter) {
            let known: &str = name.as_ref();
            if !deferred.contains(&known) {
                values.iter().for_each(|value| first.append(name.clone(), value.clone()));
            }
        }
        first
    }

    /// When the broker took it first, Unix nanoseconds.
    pub(crate) fn since(&self) -> u64 {
        self.header(DEFERRED_SINCE).and_then(|since| since.parse().ok()).unwrap_or(self.published())
    }

    /// The place that it had first.
    pub(crate) fn first_sequence(&self) -> u64 {
        let first = self.header(DEFERRED_SEQUENCE).and_then(|sequence| sequence.parse().ok());
        first.unwrap_or(self.stream_sequence())
    }
}

impl Bus {
    pub(crate) fn waiting(&self) -> &Waiting {
        &self.inner.waiting
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{HeldUp, LONGEST, Pause, SHORTEST};

    #[test]
    fn only_what_is_handled_behind_it_is_held_up_by_a_message() {
        let stream = HeldUp { delivered: 200, unanswered: 1, messages: 200, bytes: 400, max_bytes: 1_000 };
        assert_eq!(stream.percent_behind(149), 10);
        assert_eq!(HeldUp { unanswered: 50, ..stream }.percent_behind(149), 0);
        assert_eq!(stream.percent_behind(250), 0);
        assert_eq!(HeldUp { messages: 10, bytes: 1_000, ..stream }.percent_behind(1), 100);
    }

    #[test]
    fn the_next_wait_ends_before_the_stream_is_full() {
        let seconds = [10, 20, 30, 60].map(|percent| {
            let pause = Pause::after(Duration::from_secs(30), percent, Instant::now());
            pause.length.as_secs()
        });
        assert_eq!(seconds, [60, 30, 20, 10]);
        for (waited, percent, length) in [(Duration::ZERO, 50, SHORTEST), (Duration::MAX, 10, LONGEST)] {
            assert_eq!(Pause::after(waited, percent, Instant::now()).length, length);
        }
    }

    #[test]
    fn a_pause_grows_by_time_and_not_by_how_many_wait_and_is_forgotten_in_the_end() {
        let mut now = Instant::now();
        let first = Pause { length: SHORTEST, since: now };
        let mut pause = Some(first);
        for _ in 0..100 {
            pause = pause.and_then(|pause| pause.relaxed(now));
        }
        assert_eq!(pause.map(|pause| pause.length), Some(SHORTEST), "a hundred messages at once");
        let mut lengths = Vec::new();
        for _ in 0..100 {
            now += LONGEST;
            pause = pause.and_then(|pause| pause.relaxed(now));
            lengths.extend(pause.map(|pause| pause.length.as_secs()));
        }
        assert_eq!(lengths, [2, 4, 8, 16, 32]);
    }
}
