//! Groups parts of many requests into envelopes, and answers everybody in an envelope when the broker has it.
//!
//! A part goes out at once while nothing of its lane (signal, shard, tenant) is on its way; otherwise it waits for company until
//! an acknowledgement comes back, the envelope is large enough, or a few milliseconds have passed. Handing a part over never
//! waits, and what was handed over is published whether or not the client still listens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bus::{Bus, Encoding, Envelope, Schema, Subject};
use fault::Fault;
use lifecycle::CancellationToken;
use tokio::sync::{Notify, oneshot};
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use crate::admission::Hold;
use crate::metrics::{Metrics, Signal};
use crate::rarely::Rarely;
use crate::refusal;

/// No body is larger: the broker takes messages of 1 MiB.
pub const MAX_BODY: usize = 512 << 10;
/// Nor has one more items: a reader makes hundreds of bytes of an item that may have two.
pub const MAX_ITEMS: u64 = 20_000;
/// An envelope of this size waits for no more company.
const ENOUGH: usize = 256 << 10;
/// Nor does one that has waited this long.
const PATIENCE: Duration = Duration::from_millis(3);
/// How often a lost acknowledgement is said.
const SAID_EVERY: Duration = Duration::from_secs(10);
/// Lanes with nothing in them are kept for their next part, up to so many.
const KEPT_LANES: usize = 1024;

/// Which envelopes a part may share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    pub signal: Signal,
    pub shard: u16,
    pub tenant: Arc<str>,
}

/// What goes into an envelope.
pub struct Part<'a> {
    /// Bytes that `write` appends, or a few more.
    pub size: usize,
    /// Appends the part to a body: bodies of one schema can be concatenated.
    pub write: &'a dyn Fn(&mut Vec<u8>),
    /// Points, records or snapshots in it.
    pub items: u64,
    /// When it came in.
    pub received_unix_nano: u64,
}

/// Says whether the broker has a part.
pub struct Receipt(oneshot::Receiver<Fate>);

/// What became of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The broker has it.
    Safe,
    /// It may pass when it is sent again.
    Again,
    /// It will never pass as it is.
    Never,
}

impl Receipt {
    /// Waits for the broker.
    ///
    /// # Errors
    /// The part is not known to be with the broker, and sending it again is right; or the broker will never take it.
    pub async fn acknowledged(self) -> Result<(), Fault> {
        match self.0.await {
            Ok(Fate::Safe) => Ok(()),
            Ok(Fate::Never) => Err(refused()),
            Ok(Fate::Again) | Err(_) => Err(unacknowledged()),
        }
    }
}

fn refused() -> Fault {
    let detail = "the broker refuses the data as it is; send smaller batches";
    Fault::new(fault::Kind::TooLarge, "message_refused", detail)
}

fn unacknowledged() -> Fault {
    // The cause was logged once, for all who wait for the envelope.
    Fault::new(fault::Kind::Unavailable, "broker_unavailable", "the data could not be made safe; send it again")
        .retry_after(Duration::from_secs(1))
}

/// Clones share the lanes.
#[derive(Clone)]
pub struct Collector {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Bus,
    metrics: Metrics,
    lanes: Mutex<HashMap<Lane, Gathering>>,
    /// Somebody waits for company.
    waiting: Notify,
    tasks: TaskTracker,
    /// Envelopes that were not acknowledged.
    said: Mutex<Rarely>,
    run: Uuid,
    published: std::sync::atomic::AtomicU64,
}

/// What a lane has gathered and not yet published.
#[derive(Default)]
struct Gathering {
    load: Load,
    on_the_way: usize,
}

#[derive(Default)]
struct Load {
    body: Vec<u8>,
    items: u64,
    received_unix_nano: u64,
    waiters: Vec<Waiter>,
    since: Option<Instant>,
}

/// Whose part is in an envelope.
struct Waiter {
    told: oneshot::Sender<Fate>,
    _hold: Arc<Hold>,
    request: Span,
}

impl Load {
    fn has_no_room_for(&self, part: &Part<'_>) -> bool {
        let over = self.body.len() + part.size > MAX_BODY || self.items + part.items > MAX_ITEMS;
        over && !self.body.is_empty()
    }

    fn add(&mut self, part: &Part<'_>, told: oneshot::Sender<Fate>, hold: Arc<Hold>) {
        if self.body.capacity() == 0 {
            self.body.reserve(part.size.max(16 << 10));
        }
        (part.write)(&mut self.body);
        self.items += part.items;
        self.received_unix_nano = match self.received_unix_nano {
            0 => part.received_unix_nano,
            oldest => oldest.min(part.received_unix_nano),
        };
        self.waiters.push(Waiter { told, _hold: hold, request: Span::current() });
        self.since.get_or_insert_with(Instant::now);
    }

    /// The span of publishing it: part of the first request's trace, connected with the others.
    fn span(&self, lane: &Lane) -> Span {
        let first = self.waiters.first().and_then(|waiter| waiter.request.id());
        let span = tracing::info_span!(parent: first.clone(), "publish", signal = ?lane.signal, shard = lane.shard);
        // A request may have several parts in one envelope.
        for other in self.waiters.iter().filter(|waiter| waiter.request.id() != first) {
            span.follows_from(&other.request);
        }
        span
    }
}

impl Collector {
    #[must_use]
    pub fn new(bus: Bus, metrics: Metrics) -> Self {
        let inner = Inner {
            bus,
            metrics,
            lanes: Mutex::default(),
            waiting: Notify::new(),
            said: Mutex::default(),
            tasks: TaskTracker::new(),
            run: Uuid::new_v4(),
            published: 0.into(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Hands a part over. `hold`, the room of its request, is given back when the broker has answered.
    pub fn submit(&self, lane: &Lane, part: &Part<'_>, hold: &Arc<Hold>) -> Receipt {
        let (waiter, receipt) = oneshot::channel();
        let mut ready = [None, None];
        {
            let mut lanes = self.inner.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            let gathering = match lanes.get_mut(lane) {
                Some(gathering) => gathering,
                None => lanes.entry(lane.clone()).or_default(),
            };
            if gathering.load.has_no_room_for(part) {
                ready[0] = Some(gathering.take());
            }
            gathering.load.add(part, waiter, Arc::clone(hold));
            if gathering.on_the_way == 0 || gathering.load.body.len() >= ENOUGH {
                ready[1] = Some(gathering.take());
            }
        }
        if ready[1].is_none() {
            self.inner.waiting.notify_one();
        }
        for load in ready.into_iter().flatten() {
            self.publish(lane.clone(), load);
        }
        Receipt(receipt)
    }

    /// Publishes what has waited long enough, until the process stops; then everything.
    ///
    /// # Errors
    /// None; the signature is a task's.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        while !stopping.is_cancelled() {
            tokio::select! {
                () = self.inner.waiting.notified() => tokio::time::sleep(PATIENCE).await,
                () = stopping.cancelled() => break,
            }
            self.flush(PATIENCE / 2);
        }
        // What still comes in from requests that are being read goes out with the acknowledgement before it.
        self.flush(Duration::ZERO);
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        Ok(())
    }

    fn flush(&self, age: Duration) {
        let mut ready = Vec::new();
        let mut young = false;
        {
            let mut lanes = self.inner.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            for (lane, gathering) in lanes.iter_mut() {
                match gathering.load.since {
                    Some(since) if since.elapsed() >= age => ready.push((lane.clone(), gathering.take())),
                    Some(_) => young = true,
                    None => {}
                }
            }
            if lanes.len() > KEPT_LANES {
                lanes.retain(|_, gathering| gathering.on_the_way > 0 || gathering.load.since.is_some());
            }
        }
        if young {
            self.inner.waiting.notify_one();
        }
        for (lane, load) in ready {
            self.publish(lane, load);
        }
    }

    /// Publishes in a task of its own, so that no client's going away can stop it.
    fn publish(&self, lane: Lane, load: Load) {
        let collector = self.clone();
        let span = load.span(&lane);
        let work = async move {
            let fate = collector.inner.send(&lane, load.body, load.items, load.received_unix_nano).await;
            if fate == Fate::Safe {
                collector.inner.metrics.accepted(lane.signal, load.items);
            }
            for waiter in load.waiters {
                // Who does not wait any more has gone away; the data is taken all the same.
                let _ = waiter.told.send(fate);
            }
            collector.landed(lane);
        };
        self.inner.tasks.spawn(work.instrument(span));
    }

    /// An envelope of `lane` is with the broker, or failed: what has gathered meanwhile is next.
    fn landed(&self, lane: Lane) {
        let next = {
            let mut lanes = self.inner.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(gathering) = lanes.get_mut(&lane) else { return };
            gathering.on_the_way = gathering.on_the_way.saturating_sub(1);
            gathering.load.since.map(|_| gathering.take())
        };
        if let Some(load) = next {
            self.publish(lane, load);
        }
    }
}

impl Gathering {
    fn take(&mut self) -> Load {
        self.on_the_way += 1;
        std::mem::take(&mut self.load)
    }
}

impl Inner {
    async fn send(&self, lane: &Lane, body: Vec<u8>, items: u64, received_unix_nano: u64) -> Fate {
        let (schema, subject) = match lane.signal {
            Signal::Metrics => (Schema::OtlpMetrics, Subject::Metrics(lane.shard)),
            Signal::Logs => (Schema::OtlpLogs, Subject::Logs(lane.shard)),
            Signal::Processes => (Schema::Processes, Subject::Processes(lane.shard)),
        };
        let size = body.len();
        let number = self.published.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("{}-{number}", self.run.simple());
        let begun = Instant::now();
        let packed = {
            // The unpacked body ends with this block: it need not be in memory while the broker is waited for.
            let tenant = lane.tenant.to_string();
            Envelope { schema, tenant, items, received_unix_nano, encoding: Encoding::Lz4, body: body.into() }
                .encode(id)
        };
        let (fate, error) = match packed {
            Ok(message) => match self.bus.publish(subject, message).await {
                Ok(()) => {
                    self.metrics.published(lane.signal, size, begun.elapsed());
                    return Fate::Safe;
                }
                Err(error) => {
                    (if error.is_retryable() { Fate::Again } else { Fate::Never }, anyhow::Error::from(error))
                }
            },
            Err(error) => (Fate::Again, anyhow::Error::from(error).context("pack an envelope")),
        };
        self.metrics.not_published(lane.signal);
        let due = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.happened(1, SAID_EVERY, Instant::now())
        };
        if let Some(envelopes) = due {
            tracing::warn!(
                signal = ?lane.signal,
                shard = lane.shard,
                items,
                error = format!("{error:#}"),
                envelopes,
                "an envelope is not acknowledged; its senders are told"
            );
        }
        fate
    }
}

/// Waits for all receipts.
///
/// # Errors
/// One part is not with the broker: the whole request is to be sent again.
pub async fn all_acknowledged(receipts: Vec<Receipt>) -> Result<(), Fault> {
    for receipt in receipts {
        receipt.acknowledged().await?;
    }
    Ok(())
}

/// There is no room in a stream.
pub(crate) fn backlogged() -> Fault {
    refusal::overloaded("storage is behind; try again shortly").retry_after(Duration::from_secs(3))
}
