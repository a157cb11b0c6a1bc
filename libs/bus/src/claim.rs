//! One replica among several does what all of them could do.
//!
//! A claim is a note in SL_STATE that its holder writes over again and again. Whoever sees that it has stopped doing so takes
//! the claim, so no clocks are compared. For a moment two may hold one; it saves work, and nothing that must not be done
//! twice may lean on it (for that, Postgres has leases with epochs).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::HeaderMap;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use tokio::time::Instant;

use crate::Bus;
use crate::publish::{self, Attempt};
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
        Self { bus, subject, holder, patience: PATIENCE, seen: None, held: None }
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
        let (sequence, holder) = self.read().await?;
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
        self.held = self.write(self.holder.clone(), sequence).await;
        Ok(self.held.is_some())
    }

    /// Lets somebody else have it at once.
    pub async fn release(mut self) {
        if let Some(sequence) = self.held.take() {
            self.write(String::new(), sequence).await;
        }
    }

    async fn read(&self) -> anyhow::Result<(u64, String)> {
        let context = &self.bus.publishing().jetstream;
        let name = Stream::State.name(&self.bus.settings().namespace);
        let state = context.get_stream_no_info(name).await.context("name SL_STATE")?;
        let last = tokio::time::timeout(WITHIN, state.get_last_raw_message_by_subject(&self.subject)).await;
        match last.context("the broker does not say who holds a claim")? {
            Ok(message) => Ok((message.sequence, String::from_utf8_lossy(&message.payload).into_owned())),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok((0, String::new())),
            Err(error) => Err(error).context("read who holds a claim"),
        }
    }

    /// Where it is written, if nobody wrote since `expected`.
    async fn write(&self, holder: String, expected: u64) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED, expected.to_string());
        let (publishing, payload) = (self.bus.publishing(), Bytes::from(holder));
        match publish::attempt(publishing, &self.subject, &headers, &payload, Instant::now() + WITHIN).await {
            Attempt::Acknowledged(sequence) => Some(sequence),
            _ => None,
        }
    }
}
