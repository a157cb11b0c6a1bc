//! What a reader has asked the broker for: the messages that come of it, and when it must be asked again.
//!
//! Pulls ask for bytes: asking for many large messages makes the server call the client slow and cut it off. What one
//! connection may have asked for is fixed (`lines.rs`), so each pull has a fixed share of it.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::{self, MessagesErrorKind};
use futures::StreamExt as _;

use crate::connection::Loss;
use crate::stream::Stream;

/// How to read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Messages asked for at a time.
    pub max_messages: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_messages: 256 }
    }
}

/// Bytes asked for at a time; up to one and a half times as much waits in this process. One message always fits: a pull for
/// less would bring nothing.
pub(crate) const PULL_BYTES: usize = (1 << 20) + (64 << 10);

const EXPIRES: Duration = Duration::from_secs(30);
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Errors in a row after which they are no passing trouble any more.
pub(crate) const PATIENCE: u32 = 3;

/// The pull of a reader. It begins closed, and closes by itself when nothing will come of it any more.
#[derive(Default)]
pub(crate) struct Pull {
    open: Option<(pull::Stream, Loss)>,
    errors: u32,
}

impl Pull {
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Asks `consumer`. `loss` is watched since before it was looked up, so that no loss goes unnoticed.
    pub(crate) async fn open(&mut self, consumer: PullConsumer, options: &Options, loss: Loss) -> anyhow::Result<()> {
        let pull = consumer
            .stream()
            .max_bytes_per_batch(PULL_BYTES)
            .max_messages_per_batch(options.max_messages)
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await?;
        self.open = Some((pull, loss));
        Ok(())
    }

    /// The next message. May be dropped at any time without losing one.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Message> {
        let Some((pull, loss)) = &mut self.open else { anyhow::bail!("nothing was asked for") };
        let next = tokio::select! {
            biased;
            next = pull.next() => next,
            // What was pulled is handed out before; nothing more comes on a pull from before the loss.
            () = loss.happened() => None,
        };
        match next {
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => {
                // One missed heartbeat is a busy network; after the others this pull will never bring anything again.
                if !matches!(error.kind(), MessagesErrorKind::MissingHeartbeat) || self.errors > 0 {
                    self.open = None;
                }
                Err(error.into())
            }
            None => {
                self.open = None;
                anyhow::bail!("the pull ended")
            }
        }
    }

    /// Asks no more; gives what has come already and was not handed out.
    pub(crate) fn close(&mut self) -> Option<pull::Stream> {
        self.open.take().map(|(pull, _)| pull)
    }

    /// Whether the last thing that came was an error.
    pub(crate) fn is_troubled(&self) -> bool {
        self.errors > 0
    }

    /// Whether there were so many errors that it does not look as if it would pass.
    pub(crate) fn is_stuck(&self) -> bool {
        self.errors >= PATIENCE
    }

    /// A message was read: whatever trouble there was is over.
    pub(crate) fn recovered(&mut self) {
        self.errors = 0;
    }

    /// Waits before `stream` is read again after `error`.
    pub(crate) async fn mend(&mut self, stream: Stream, durable: Option<&str>, error: &anyhow::Error) {
        self.errors = self.errors.saturating_add(1);
        if self.errors == PATIENCE {
            tracing::warn!(%stream, durable, error = format!("{error:#}"), "cannot read; trying on");
        } else {
            tracing::debug!(%stream, durable, error = format!("{error:#}"), "reading again");
        }
        tokio::time::sleep(pause(self.errors)).await;
    }
}

/// Short at first, because most trouble is a restart.
pub(crate) fn pause(errors: u32) -> Duration {
    (Duration::from_millis(50) * 2_u32.saturating_pow(errors.min(8))).min(LONGEST_PAUSE)
}
