//! One message as a reader gets it, and what can become of it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use async_nats::HeaderMap;
use async_nats::jetstream::AckKind;
use bytes::Bytes;

use crate::counts;
use crate::look::unix_nanos;
use crate::publish::{Outgoing, PublishError};
use crate::settings::IN_WORK_AT_MOST;
use crate::stream::{Stream, Subject};
use crate::tally::Fate;
use crate::{Bus, headers};

/// How long writing a dead letter may take before the original is given back instead: its reader waits meanwhile.
const DEAD_WITHIN: Duration = Duration::from_secs(3);
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Up to so many times that.
const MOST_RETRIES: u32 = 12;
/// How long an original stays away for which there is no room among the dead letters.
const NO_ROOM_AFTER: Duration = Duration::from_secs(60);
/// How long a message that only a newer version knows is put off at a time, and how long in all: longer than a release
/// takes to reach every replica.
const UNKNOWN_AFTER: Duration = Duration::from_secs(30);
const UNKNOWN_KEPT: Duration = Duration::from_secs(6 * 60 * 60);

/// A message out of a stream. Clones are the same message: whoever answers first, answers.
#[derive(Clone)]
pub struct Delivery {
    bus: Bus,
    message: async_nats::jetstream::Message,
    stream: String,
    stream_sequence: u64,
    published: u64,
    consumer_sequence: u64,
    deliveries: u64,
    missed: u64,
    /// The stream whose account this message is part of.
    counted: Option<Stream>,
}

impl Delivery {
    pub(crate) fn new(bus: Bus, message: async_nats::jetstream::Message) -> anyhow::Result<Self> {
        let info = message.info().map_err(anyhow::Error::from_boxed).context("read where a message comes from")?;
        Ok(Self {
            stream: info.stream.to_owned(),
            stream_sequence: info.stream_sequence,
            consumer_sequence: info.consumer_sequence,
            published: unix_nanos(info.published),
            deliveries: u64::try_from(info.delivered).unwrap_or(1),
            missed: 0,
            counted: None,
            bus,
            message,
        })
    }

    pub(crate) fn with_missed(mut self, missed: u64) -> Self {
        self.missed = missed;
        self
    }

    /// It is part of the account of `stream`: what becomes of it is written down before it is acknowledged.
    pub(crate) fn counted(mut self, stream: Stream) -> Self {
        self.counted = Some(stream);
        self
    }

    pub(crate) fn counted_in(&self) -> Option<Stream> {
        self.counted
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    pub(crate) fn headers(&self) -> Option<&HeaderMap> {
        self.message.headers.as_ref()
    }

    /// The body as published.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// `Nats-Msg-Id`, the id that its publisher gave it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.header(headers::DEFERRED_ID).or_else(|| self.header("Nats-Msg-Id")).unwrap_or_default()
    }

    /// The time that it tells, Unix nanoseconds, where that is all that it is for (`Schema::Tick`).
    #[must_use]
    pub fn tick(&self) -> Option<u64> {
        headers::tick(|name| self.header(name))
    }

    /// Items inside, as its publisher counted them; 1 where nobody did.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.header(headers::ITEMS).and_then(|items| items.parse().ok()).unwrap_or(1)
    }

    /// The trace that it belongs to, for `telemetry::context::adopt`.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.header(telemetry::context::HEADER)
    }

    /// The subject that it was published on.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    /// The name of its stream on the server.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Its place in the stream. Not an identity: a stream that lost its tail uses numbers again.
    #[must_use]
    pub fn stream_sequence(&self) -> u64 {
        self.stream_sequence
    }

    pub(crate) fn consumer_sequence(&self) -> u64 {
        self.consumer_sequence
    }

    /// When the broker took it, Unix nanoseconds.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.published
    }

    /// How long ago the broker took it first; nothing where the broker's clock is ahead of ours.
    #[must_use]
    pub fn age(&self) -> Duration {
        let published = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.since());
        SystemTime::now().duration_since(published).unwrap_or_default()
    }

    /// How often it has been delivered, this time included.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Whether it was delivered before.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.deliveries > 1
    }

    /// Only when following: messages between the one before and this one that the stream evicted before they were read.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Stored or handled: counts it, then acknowledges. Better told of many at once, with [`ack_all`].
    pub async fn ack(&self) {
        end(&[self], Fate::Stored).await;
    }

    /// Nothing is in it to be stored, as in a tick.
    pub async fn pass(&self) {
        end(&[self], Fate::Passed).await;
    }

    /// Give it to somebody again, after `delay`.
    pub async fn nak(&self, delay: Duration) {
        self.answer(AckKind::Nak(Some(delay))).await;
    }

    /// Still working on it: the time to acknowledge begins anew.
    pub async fn progress(&self) {
        self.answer(AckKind::Progress).await;
    }

    /// Nobody will ever be able to use it: keeps it in DEAD with the reason, then takes it out of the consumer. If it
    /// cannot be kept, it is given back to the consumer instead, and the error says why. Takes a few seconds at the most.
    ///
    /// # Errors
    /// The dead letter could not be written; the message comes again.
    pub async fn dead(&self, service: &'static str, reason: &str) -> Result<(), PublishError> {
        self.end_as_letter(service, reason, Some(reason)).await
    }

    /// Where there is no room for the letter and something `condemned` it, nobody looks inside again.
    async fn end_as_letter(
        &self,
        service: &'static str,
        reason: &str,
        condemned: Option<&str>,
    ) -> Result<(), PublishError> {
        let mut letter = Outgoing::new(self.letter_id(service), self.message.payload.clone()).within(DEAD_WITHIN);
        letter.headers = self.first_headers();
        let sequence = self.first_sequence().to_string();
        let letter = letter
            .header("Sl-Dead-Reason", reason)
            .header("Sl-Dead-Stream", &self.stream)
            .header("Sl-Dead-Sequence", sequence)
            .header("Sl-Dead-Id", self.id());
        if let Err(error) = Box::pin(self.bus.publish(Subject::Dead(service), letter)).await {
            if self.bus.knows_as_full(Stream::Dead) {
                Box::pin(self.wait(NO_ROOM_AFTER, condemned)).await;
            } else {
                self.nak(RETRY_AFTER).await;
            }
            return Err(error);
        }
        tracing::error!(stream = self.stream, sequence = self.stream_sequence, reason, "message is a dead letter now");
        if Box::pin(count(&[self], Fate::Dead)).await.is_empty() {
            self.answer(AckKind::Term).await;
            Ok(())
        } else {
            self.nak(RETRY_AFTER).await;
            Err(PublishError::Unavailable("the dead letter cannot be counted".to_owned()))
        }
    }

    /// What the dead letter is called that `service` makes of it.
    pub(crate) fn letter_id(&self, service: &str) -> String {
        format!("dead-{service}-{}-{}-{}", self.stream, self.first_sequence(), self.since())
    }

    /// As [`dead`](Self::dead), for who can do nothing more about it: whether it is kept, or else comes again, which is
    /// logged.
    pub async fn bury(&self, service: &'static str, reason: &str) -> bool {
        self.say_buried(self.dead(service, reason).await, reason)
    }

    fn say_buried(&self, buried: Result<(), PublishError>, reason: &str) -> bool {
        if let Err(error) = &buried {
            let (stream, sequence) = (&self.stream, self.stream_sequence);
            tracing::warn!(%error, stream, sequence, reason, "cannot write a dead letter; the message comes again");
        }
        buried.is_ok()
    }

    /// A newer version may be able to use it: gives it to somebody else after a while, and keeps it as a dead letter only
    /// when nobody has been able to for hours. Says whether it is a dead letter now.
    pub async fn put_off(&self, service: &'static str, reason: &str) -> bool {
        if self.age() > UNKNOWN_KEPT {
            // A newer version may come as long as it is there.
            return self.say_buried(self.end_as_letter(service, reason, None).await, reason);
        }
        self.bus.saw_unknown();
        if self.redelivered() || self.has_waited() {
            tracing::debug!(stream = self.stream, sequence = self.stream_sequence, reason, "put off again");
        } else {
            let (stream, sequence) = (&self.stream, self.stream_sequence);
            tracing::warn!(
                stream,
                sequence,
                reason,
                "a message is not known to this version; it waits for a newer one"
            );
        }
        Box::pin(self.wait(UNKNOWN_AFTER, None)).await;
        false
    }

    async fn answer(&self, kind: AckKind) {
        // Only a closed client refuses, and then the message comes again by itself.
        if let Err(error) = self.message.ack_with(kind).await {
            tracing::debug!(%error, stream = self.stream, "cannot answer for a message");
        }
    }
}

/// Does `work`; meanwhile the broker hears once in `every` that `held` are in work, so that it gives them to nobody else. It
/// hears so for five minutes at most: who hangs must not keep messages from other replicas.
pub async fn in_work<'a, T>(
    held: impl Iterator<Item = &'a Delivery> + Clone,
    every: Duration,
    work: impl Future<Output = T>,
) -> T {
    tokio::select! {
        done = work => done,
        never = say_in_work(held, every) => match never {},
    }
}

/// Beside the work, never instead of it: what it says may have to wait for the broker.
async fn say_in_work<'a>(held: impl Iterator<Item = &'a Delivery> + Clone, every: Duration) -> Infallible {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(every).await;
        for delivery in held.clone().take_while(|_| begun.elapsed() < IN_WORK_AT_MOST) {
            delivery.progress().await;
        }
    }
}

/// Stored or handled: counts them, then acknowledges. What cannot be counted is not acknowledged and comes again.
pub async fn ack_all<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) {
    let deliveries: Vec<&Delivery> = deliveries.into_iter().collect();
    end(&deliveries, Fate::Stored).await;
}

async fn end(deliveries: &[&Delivery], fate: Fate) {
    let uncounted = Box::pin(count(deliveries, fate)).await;
    for delivery in deliveries {
        if delivery.counted.is_some_and(|stream| uncounted.contains(&stream)) {
            // Longer each time: what is already handled is handled anew with each.
            let times = u32::try_from(delivery.deliveries()).unwrap_or(u32::MAX).clamp(1, MOST_RETRIES);
            delivery.nak(RETRY_AFTER * times).await;
        } else {
            delivery.answer(AckKind::Ack).await;
        }
    }
}

/// Writes down what became of messages; gives the streams for which that cannot be done. They hold up no other.
async fn count(deliveries: &[&Delivery], fate: Fate) -> BTreeSet<Stream> {
    let mut streams: Vec<(Stream, &Bus, Vec<counts::Ended>)> = Vec::new();
    for delivery in deliveries {
        let Some(stream) = delivery.counted else { continue };
        let ended = (delivery.stream_sequence, fate, delivery.items());
        match streams.iter_mut().find(|(other, ..)| *other == stream) {
            Some((.., all)) => all.push(ended),
            None => streams.push((stream, &delivery.bus, vec![ended])),
        }
    }
    let writing = streams.iter().map(|(stream, bus, ended)| counts::count(bus, *stream, ended));
    let written = futures::future::join_all(writing).await;
    for ((stream, bus, _), outcome) in streams.iter().zip(&written) {
        bus.counted(*stream, outcome.as_ref().err());
    }
    let outcomes = streams.iter().zip(&written);
    outcomes.filter(|(_, outcome)| outcome.is_err()).map(|((stream, ..), _)| *stream).collect()
}
