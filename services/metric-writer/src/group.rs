//! Envelopes that are written together: how they gather.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Batch, Bus, Delivery, Envelope, Options, Stream, Trial};
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll, select_all};
use lifecycle::CancellationToken;
use series::Reader;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::SERVICE;
use crate::metrics::Metrics;
use crate::samples::Samples;
use crate::taken::Taken;

/// How long the first envelope of a group waits for others.
const LINGER: Duration = Duration::from_millis(50);
/// Where there is a backlog, for how long a group grows.
const LONGEST_GROWTH: Duration = Duration::from_millis(500);
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Dead letters that are being written at a time, beside everything else.
const BURIALS: usize = 16;
/// How long an envelope stays away for which there is no hand free to bury it.
const BURY_LATER: Duration = Duration::from_secs(60);
/// How long one try to store a group may take; each request in it ends by itself.
const ONE_TRY: Duration = Duration::from_secs(120);

/// What is written and answered for together.
pub(crate) struct Group {
    pub(crate) batch: Batch<Taken>,
    /// Of all envelopes together.
    pub(crate) samples: Samples,
    pub(crate) envelopes: usize,
    /// Where it is one envelope that may be the end of us.
    pub(crate) trial: Option<Trial>,
    bytes: usize,
    /// As long as this lives, something waits to be stored.
    _held: Arc<()>,
}

/// How large a group gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The more samples a series has in a request, the less each costs the store; and all of it is held in memory.
    pub(crate) samples: usize,
    pub(crate) bytes: usize,
}

/// Gathers groups from what the broker brings.
pub(crate) struct Gathering {
    arriving: SelectAll<BoxStream<'static, Delivery>>,
    /// A suspect that came behind others, with which it must not be handled.
    apart: Option<Delivery>,
    reader: Reader,
    limits: Limits,
    metrics: Metrics,
    burials: JoinSet<()>,
    /// Groups that are not stored yet share it.
    held: Arc<()>,
}

impl Group {
    fn new(held: &Arc<()>) -> Self {
        let batch = Batch::default().within(ONE_TRY);
        Self { batch, samples: Samples::default(), envelopes: 0, trial: None, bytes: 0, _held: Arc::clone(held) }
    }

    fn push(&mut self, delivery: Delivery, taken: Taken) {
        self.envelopes += 1;
        self.bytes += taken.bytes;
        self.batch.push(delivery, taken);
    }

    fn is_enough(&self, limits: Limits) -> bool {
        self.samples.len() >= limits.samples || self.bytes >= limits.bytes
    }
}

impl Gathering {
    /// From all shards, until `stopping`.
    pub(crate) fn new(
        bus: &Bus,
        stopping: &CancellationToken,
        reader: Reader,
        limits: Limits,
        metrics: Metrics,
    ) -> Self {
        let shards = (0..bus.settings().shards).map(Stream::Metrics);
        let deliveries =
            shards.map(|stream| bus.consume(stream, SERVICE, Options::default()).until(stopping.clone()).boxed());
        let (burials, held) = (JoinSet::new(), Arc::default());
        Self { arriving: select_all(deliveries), apart: None, reader, limits, metrics, burials, held }
    }

    /// The next group; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Group> {
        let before = self.reader.usage();
        let group = self.gather().await;
        self.metrics.cached(before, self.reader.usage());
        group
    }

    /// Waits for the dead letters that are being written.
    pub(crate) async fn finish(mut self) {
        while self.burials.join_next().await.is_some() {}
    }

    async fn gather(&mut self) -> Option<Group> {
        let mut group = Group::new(&self.held);
        let mut begun: Option<Instant> = None;
        while !group.is_enough(self.limits) && begun.is_none_or(|begun| begun.elapsed() < LONGEST_GROWTH) {
            let delivery = match (self.arrival(begun).await, begun) {
                (Some(Ok(delivery)), _) => delivery,
                (Some(Err(_)), None) => {
                    self.idle();
                    continue;
                }
                (None, None) => return None,
                (_, Some(_)) => break,
            };
            // A tick ends nobody, nor does what nobody looks into.
            if delivery.is_suspect() && delivery.tick().is_none() && Envelope::unknown(&delivery).is_none() {
                if group.envelopes > 0 {
                    self.apart = Some(delivery);
                    break;
                }
                match self.alone(delivery).await {
                    Some(group) => return Some(group),
                    None => continue,
                }
            }
            self.take(delivery, &mut group).await;
            if group.envelopes > 0 {
                begun.get_or_insert_with(Instant::now);
            }
        }
        Some(group)
    }

    /// The next envelope, or that none came in time; `None` at the end.
    async fn arrival(&mut self, begun: Option<Instant>) -> Option<Result<Delivery, Elapsed>> {
        if let Some(suspect) = self.apart.take() {
            return Some(Ok(suspect));
        }
        let patience = begun.map_or(IDLE_AFTER, |begun| LINGER.saturating_sub(begun.elapsed()));
        timeout(patience, self.arriving.next()).await.transpose()
    }

    async fn take(&mut self, delivery: Delivery, group: &mut Group) {
        if delivery.tick().is_some() {
            delivery.pass().await;
            if group.envelopes == 0 {
                self.idle();
            }
            return;
        }
        match self.read(&delivery, &mut group.samples) {
            Ok(taken) => group.push(delivery, taken),
            Err(Verdict::Unknown(reason)) => put_off(&delivery, &reason, &self.metrics).await,
            Err(Verdict::Dead(reason)) => self.bury(delivery, reason).await,
        }
    }

    /// A group of one envelope that may be what ends its readers.
    async fn alone(&mut self, delivery: Delivery) -> Option<Group> {
        let trial = Trial::begin(SERVICE, from_ref(&delivery)).await?;
        let mut group = Group::new(&self.held);
        match self.read(&delivery, &mut group.samples) {
            Ok(taken) => {
                group.push(delivery, taken);
                group.trial = Some(trial);
                return Some(group);
            }
            Err(Verdict::Unknown(reason)) => put_off(&delivery, &reason, &self.metrics).await,
            Err(Verdict::Dead(reason)) => {
                if delivery.bury(SERVICE, &reason).await {
                    self.metrics.envelopes.of(["dead"]).inc();
                }
            }
        }
        trial.end().await;
        None
    }

    fn read(&mut self, delivery: &Delivery, samples: &mut Samples) -> Result<Taken, Verdict> {
        let taken = Taken::read(&mut self.reader, delivery, samples).map_err(|unreadable| {
            let reason = unreadable.to_string();
            if unreadable.is_unknown() { Verdict::Unknown(reason) } else { Verdict::Dead(reason) }
        })?;
        self.metrics.read(&taken.tally);
        Ok(taken)
    }

    /// Nothing arrived but perhaps a tick.
    fn idle(&self) {
        // The empty group that waits holds a share, too.
        if Arc::strong_count(&self.held) <= 2 {
            self.metrics.backlog_age.set(0.0);
        }
    }

    /// Beside everything else: where dead letters cannot be written, what is good must not wait for them.
    async fn bury(&mut self, delivery: Delivery, reason: String) {
        while self.burials.try_join_next().is_some() {}
        if self.burials.len() >= BURIALS {
            return delivery.nak(BURY_LATER).await;
        }
        let metrics = self.metrics.clone();
        self.burials.spawn(async move {
            if delivery.bury(SERVICE, &reason).await {
                metrics.envelopes.of(["dead"]).inc();
            }
        });
    }
}

/// After some hours of that it is a dead letter.
async fn put_off(delivery: &Delivery, reason: &str, metrics: &Metrics) {
    if delivery.put_off(SERVICE, reason).await {
        metrics.envelopes.of(["dead"]).inc();
    }
}

/// Why an envelope is not read.
enum Verdict {
    /// A newer version may.
    Unknown(String),
    /// Nobody ever will.
    Dead(String),
}
