//! A message that was read, and what its reader says of it.

use anyhow::{Context as _, anyhow};
use async_nats::jetstream::{self, AckKind};
use bytes::Bytes;
use std::time::Duration;

use crate::{Bus, Envelope, EnvelopeError, Outgoing, PublishError, Subject};

/// A message from a stream.
#[derive(Clone)]
pub struct Delivery {
    bus: Bus,
    message: std::sync::Arc<jetstream::Message>,
    stream: String,
    sequence: u64,
    delivered: i64,
    published_unix_nano: i128,
}

impl Delivery {
    pub(crate) fn new(bus: Bus, message: jetstream::Message) -> anyhow::Result<Self> {
        let info = message
            .info()
            .map_err(|error| anyhow!("{error}"))
            .context("read where a message comes from")?;
        let (stream, sequence, delivered) =
            (info.stream.to_owned(), info.stream_sequence, info.delivered);
        let published_unix_nano = info.published.unix_timestamp_nanos();
        Ok(Self {
            bus,
            message: std::sync::Arc::new(message),
            stream,
            sequence,
            delivered,
            published_unix_nano,
        })
    }

    /// The body.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message
            .headers
            .as_ref()?
            .get(name)
            .map(async_nats::HeaderValue::as_str)
    }

    /// The subject that it was published on.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.message.subject.as_str()
    }

    /// Its place in the stream. No identity: a stream that lost its tail uses places again.
    #[must_use]
    pub fn stream_sequence(&self) -> u64 {
        self.sequence
    }

    /// When the broker took it.
    #[must_use]
    pub fn published_unix_nano(&self) -> u64 {
        u64::try_from(self.published_unix_nano).unwrap_or_default()
    }

    /// Whether it was delivered before.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.delivered > 1
    }

    /// The envelope in it.
    ///
    /// # Errors
    /// What makes it unreadable, for ever.
    pub fn envelope(&self) -> Result<Envelope, EnvelopeError> {
        Envelope::decode(|name| self.header(name), self.payload())
    }

    /// It is handled. Lost acknowledgements lead to another delivery, which whoever handles it must bear.
    pub async fn ack(&self) {
        self.say(AckKind::Ack).await;
    }

    /// It could not be handled now; deliver it again after `delay`.
    pub async fn nak(&self, delay: Duration) {
        self.say(AckKind::Nak(Some(delay))).await;
    }

    /// It is still being handled; do not deliver it to another yet.
    pub async fn progress(&self) {
        self.say(AckKind::Progress).await;
    }

    /// It can never be handled: keeps it as a dead letter of `service` with the reason, then ends its delivery.
    ///
    /// # Errors
    /// The dead letter was not taken; the message will be delivered again.
    pub async fn dead(&self, service: &'static str, reason: &str) -> Result<(), PublishError> {
        let mut letter = Outgoing::new(
            format!("dead-{}-{}", self.stream, self.sequence),
            self.payload().clone(),
        );
        letter.headers = vec![
            ("Sl-Dead-Reason", single_line(reason)),
            ("Sl-Dead-Stream", self.stream.clone()),
            ("Sl-Dead-Sequence", self.sequence.to_string()),
        ];
        for name in crate::envelope::HEADERS {
            if let Some(value) = self.header(name) {
                letter.headers.push((name, value.to_owned()));
            }
        }
        self.bus.publish(Subject::Dead(service), letter).await?;
        self.say(AckKind::Term).await;
        tracing::error!(
            service,
            reason,
            stream = self.stream,
            sequence = self.sequence,
            "message dead-lettered"
        );
        Ok(())
    }

    async fn say(&self, kind: AckKind) {
        // Unsaid, the message is delivered again after the wait: safe, and worth a line only while debugging.
        if let Err(error) = self.message.ack_with(kind).await {
            tracing::debug!(%error, "cannot answer the broker about a message");
        }
    }
}

/// Header values are one line.
fn single_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}
