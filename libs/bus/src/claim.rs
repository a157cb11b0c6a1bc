//! One replica among several does what all of them could do.
//!
//! A claim is a note in SL_STATE that its holder writes over again and again. Whoever sees that it has stopped doing so takes
//! the claim, so no clocks are compared. For a moment two may hold one; it saves work, and nothing that must not be done
//! twice may lean on it (for that, Postgres has leases with epochs). What a holder has done it can leave for the next one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::HeaderMap;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::Bus;
use crate::attempt::{Attempt, attempt};
use crate::stream::{Stream, claim_subject};

/// How long a holder may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(3);
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// What a replica knows of a claim.
pub struct Claim {
    bus: Bus,
    subject: String,
    holder: String,
    patience: Duration,
    /// The holder's last word, as it was first seen.
    seen: Option<(u64, Instant)>,
    /// Our own last word, while we hold it.
    held: Option<u64>,
    left: String,
}

/// What is written down: who holds it, nobody where that is empty, and what was left.
#[derive(Default, Serialize, Deserialize)]
struct Note {
    holder: String,
    #[serde(default)]
    left: String,
}

impl Claim {
    pub(crate) fn new(bus: Bus, service: &str, what: &str) -> Self {
        static COUNTED: AtomicU64 = AtomicU64::new(0);
        let namespace = &bus.settings().namespace;
        let subject = claim_subject(namespace, service, what);
        // The server numbers its clients, and names itself anew at each start.
        let server = bus.publishing().client.server_info();
        let count = COUNTED.fetch_add(1, Ordering::Relaxed);
        let holder = format!("{}-{}-{}-{count}", server.server_id, server.client_id, std::process::id());
        Self { bus, subject, holder, patience: PATIENCE, seen: None, held: None, left: String::new() }
    }

    /// Sets how long a holder may be silent before somebody else takes the claim.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Whether this replica holds it now. To keep it, ask several times within [`patience`](Self::patience).
    ///
    /// # Errors
    /// The broker is away; then nobody knows, and this replica holds nothing.
    pub async fn hold(&mut self) -> anyhow::Result<bool> {
        self.held = None;
        let (sequence, Note { holder, left }) = self.read().await?;
        self.left = left;
        let is_free = holder.is_empty() || holder == self.holder;
        if !is_free {
            match self.seen {
                Some((seen, since)) if seen == sequence => {
                    if since.elapsed() < self.patience {
                        return Ok(false);
                    }
                }
                _ => {
                    self.seen = Some((sequence, Instant::now()));
                    return Ok(false);
                }
            }
        }
        self.held = self.write(&self.holder, sequence).await;
        Ok(self.held.is_some())
    }

    /// What was left by whoever held it last, as of the last [`hold`](Self::hold).
    #[must_use]
    pub fn left(&self) -> &str {
        &self.left
    }

    /// Leaves something for the next holder; nothing, when this replica does not hold it any more.
    pub async fn leave(&mut self, text: String) {
        if let Some(sequence) = self.held.take() {
            self.left = text;
            self.held = self.write(&self.holder, sequence).await;
        }
    }

    /// Lets somebody else have it at once.
    pub async fn release(mut self) {
        if let Some(sequence) = self.held.take() {
            self.write("", sequence).await;
        }
    }

    async fn read(&self) -> anyhow::Result<(u64, Note)> {
        let context = &self.bus.publishing().jetstream;
        let name = Stream::State.name(&self.bus.settings().namespace);
        let state = context.get_stream_no_info(name).await.context("name SL_STATE")?;
        let last = tokio::time::timeout(WITHIN, state.get_last_raw_message_by_subject(&self.subject)).await;
        match last.context("the broker does not say who holds a claim")? {
            Ok(message) => Ok((message.sequence, serde_json::from_slice(&message.payload).unwrap_or_default())),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok((0, Note::default())),
            Err(error) => Err(error).context("read who holds a claim"),
        }
    }

    /// Where it is written, if nobody wrote since `expected`.
    async fn write(&self, holder: &str, expected: u64) -> Option<u64> {
        let note = Note { holder: holder.to_owned(), left: self.left.clone() };
        let payload = Bytes::from(serde_json::to_vec(&note).ok()?);
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED, expected.to_string());
        match attempt(self.bus.publishing(), &self.subject, &headers, &payload, Instant::now() + WITHIN).await {
            Attempt::Acknowledged(sequence) => Some(sequence),
            _ => None,
        }
    }
}
