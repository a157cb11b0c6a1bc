//! Publishing: it has happened when the broker said so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::{HeaderMap, header};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{Bus, Subject};

/// async-nats hangs for ever above 5,000 acknowledgements that nobody awaited.
pub(crate) const MOST_IN_FLIGHT: usize = 1_024;
const MOST_BYTES_IN_FLIGHT: usize = 64 << 20;
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// A message on its way out.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The body.
    pub payload: Bytes,
    /// The same message has the same id for ever: the broker drops what it took within two minutes before.
    pub id: String,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// When to give up.
    pub deadline: Duration,
}

impl Outgoing {
    /// A message without further headers that is given ten seconds.
    pub fn new(id: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            id: id.into(),
            headers: Vec::new(),
            deadline: DEFAULT_DEADLINE,
        }
    }
}

/// The message was not acknowledged in time. Whether the broker has it is unknown; the same id may be published again.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker did not answer.
    #[error("the broker did not acknowledge the message in time")]
    Unknown,
    /// The broker said no, and will again.
    #[error("the broker refused the message: {0}")]
    Refused(String),
}

/// Bounds what is published but not yet acknowledged.
#[derive(Clone)]
pub(crate) struct Window {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            messages: Arc::new(Semaphore::new(MOST_IN_FLIGHT / 2)),
            bytes: Arc::new(Semaphore::new(MOST_BYTES_IN_FLIGHT)),
        }
    }
}

impl Bus {
    /// Publishes, and returns when the broker has acknowledged. Retries under the same id until the deadline.
    ///
    /// Cancelling leaves it unknown whether the message was taken.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, subject: Subject, message: Outgoing) -> Result<(), PublishError> {
        let give_up = Instant::now() + message.deadline;
        let size =
            u32::try_from(message.payload.len().min(MOST_BYTES_IN_FLIGHT)).unwrap_or(u32::MAX);
        // The semaphores are never closed, so neither fails.
        let _messages = self.window.messages.acquire().await;
        let _bytes = self.window.bytes.acquire_many(size).await;
        let headers = headers(&message);
        let subject = self.layout.subject(subject);
        let mut pause = Duration::from_millis(20);
        loop {
            let attempt = async {
                let ack = self
                    .publishing
                    .publish_with_headers(subject.clone(), headers.clone(), message.payload.clone())
                    .await?;
                ack.await
            };
            let left = give_up.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, attempt).await {
                Ok(Ok(_)) => return Ok(()),
                Err(_) => return Err(PublishError::Unknown),
                Ok(Err(error)) if is_final(error.kind()) => {
                    return Err(PublishError::Refused(error.to_string()));
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, subject, "publishing again");
                    tokio::time::sleep(pause.min(left)).await;
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
            }
        }
    }
}

/// Everything else may pass: a leader is being elected, the connection is coming back, the answer was lost.
fn is_final(kind: PublishErrorKind) -> bool {
    matches!(
        kind,
        PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence
    )
}

fn headers(message: &Outgoing) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_MESSAGE_ID, message.id.as_str());
    for (name, value) in &message.headers {
        headers.insert(*name, value.as_str());
    }
    if let Some(traceparent) = telemetry::context::current() {
        headers.insert(telemetry::context::HEADER, traceparent);
    }
    headers
}
