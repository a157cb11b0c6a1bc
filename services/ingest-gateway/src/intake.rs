//! From a request's bytes to parts of envelopes: checked, named, stamped, split, handed over.

mod snapshots;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fault::Fault;
use model::{BatchId, Times};
use otlp::{Limits, Most, Refusals, Rules, Walk, append_stamped};

use crate::admission::Hold;
use crate::backlog::Backlog;
use crate::collector::{Collector, MAX_BODY, MAX_ITEMS, Part, Receipt, all_acknowledged};
use crate::heartbeat::Heartbeats;
use crate::heavy::Heavy;
use crate::left_out::LeftOut;
use crate::metrics::{Metrics, Signal};
use crate::naming::{self, Named};
use crate::seen::{Detail, Sightings};
use crate::sender::Sender;

pub use snapshots::Snapshot;

/// Room for what is stamped on a piece, within [`MAX_BODY`].
pub const STAMP_ROOM: usize = 2 << 10;
/// What one resource costs on its way: its name, stamp and place, beside its bytes.
const RESOURCE_COST: usize = 1 << 10;
/// Larger requests, and those of more resources, are worked off beside the async threads: they take over a millisecond.
const INLINE_BYTES: usize = 256 << 10;
const INLINE_RESOURCES: usize = 64;

/// What became of a request that was taken.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Items that the broker has.
    pub items: u64,
    /// Items that were refused, which the client is told.
    pub refused: Refusals,
    /// What the client should know though nothing was refused.
    pub warning: Option<String>,
    /// The agent that sent it, or that its first resource names.
    pub agent_id: Option<String>,
}

/// Which times are believed of each signal.
#[derive(Debug, Clone, Copy)]
pub struct Believed {
    pub metrics: Times,
    pub logs: Times,
}

/// Takes requests. Clones share everything.
#[derive(Clone)]
pub struct Intake {
    pub collector: Collector,
    pub backlog: Backlog,
    pub sightings: Sightings,
    pub heartbeats: Heartbeats,
    pub metrics: Metrics,
    pub left_out: LeftOut,
    pub heavy: Heavy,
    pub limits: Limits,
    pub believed: Believed,
    /// The most processes of a snapshot.
    pub processes: usize,
    pub shards: u16,
}

/// A request with what is known of it before it is looked into.
struct Arrival<'a> {
    signal: otlp::Signal,
    request: &'a [u8],
    sender: &'a Sender,
    /// The `sightline-batch` header.
    batch: Option<&'a str>,
}

impl Intake {
    /// Takes an OTLP export request and waits until the broker has all of it. `batch` is the `sightline-batch` header.
    ///
    /// # Errors
    /// It is malformed, too large, or not known to be with the broker.
    pub async fn otlp(
        &self,
        signal: otlp::Signal,
        request: Bytes,
        sender: &Sender,
        batch: Option<&str>,
        hold: Hold,
    ) -> Result<Taken, Fault> {
        let many = otlp::count_resources(&request, INLINE_RESOURCES) >= INLINE_RESOURCES;
        let (receipts, taken) = if many || request.len() > INLINE_BYTES {
            let (intake, sender, batch) = (self.clone(), sender.clone(), batch.map(str::to_owned));
            // This runs to its end even if the client goes away meanwhile, as the rest of the hand-over does.
            let work = move || {
                let arrival = Arrival { signal, request: &request, sender: &sender, batch: batch.as_deref() };
                intake.hand_over(&arrival, hold)
            };
            self.heavy.run(work).await??
        } else {
            self.hand_over(&Arrival { signal, request: &request, sender, batch }, hold)?
        };
        all_acknowledged(receipts).await?;
        Ok(taken)
    }

    /// Nothing of a request is handed over before all that can be refused was looked at.
    fn hand_over(&self, arrival: &Arrival<'_>, hold: Hold) -> Result<(Vec<Receipt>, Taken), Fault> {
        let received = now();
        let Arrival { signal, request, sender, batch } = *arrival;
        let label = Signal::from(signal);
        self.metrics.received(label, request.len());
        let rules = self.rules(signal, received);
        // Envelopes are filled while the request is still in memory.
        let mut room = hold.beside();
        room.grow(request.len() + self.resources(request)? * RESOURCE_COST)?;
        let walk = otlp::check(request, signal, &rules).map_err(|invalid| self.refusal(request, signal, invalid))?;
        let batch = match signal {
            otlp::Signal::Metrics => None,
            otlp::Signal::Logs => Some(naming::batch_id(&walk, request, sender, batch)?),
        };
        let named = self.name(&walk, label, sender, received)?;
        self.left_out.refused(sender, label, &walk);
        let hold = Arc::new(hold);
        let mut receipts = Vec::with_capacity(named.len());
        let mut all_named = named.iter();
        // Counted through what the client sent, so that a part keeps its number whatever is refused this time.
        let mut before = 0;
        for resource in walk.resources.iter().filter(|resource| resource.items > 0 || batch.is_some()) {
            let named = if resource.items > 0 { all_named.next() } else { None };
            before += resource.pieces(&rules, MOST, |piece| {
                // Who has no items has no pieces.
                let Some(named) = named else { return };
                let stamp = named.stamp(batch.map(|batch| (batch, before + piece.number)));
                let part = Part {
                    size: piece.content.len() + STAMP_ROOM,
                    write: &|body| append_stamped(body, &piece.content, &stamp),
                    items: piece.items,
                    received_unix_nano: received,
                };
                receipts.push(self.collector.submit(&named.lane, &part, &hold));
            });
        }
        let agent_id = named.first().and_then(|named| named.agent_id.clone());
        Ok((receipts, Taken { items: walk.items, refused: walk.refused, warning: None, agent_id }))
    }

    fn rules(&self, signal: otlp::Signal, received_unix_nano: u64) -> Rules {
        let believed = match signal {
            otlp::Signal::Metrics => self.believed.metrics,
            otlp::Signal::Logs => self.believed.logs,
        };
        Rules { limits: self.limits, times: believed.window(received_unix_nano) }
    }

    fn refusal(&self, request: &[u8], signal: otlp::Signal, invalid: otlp::Invalid) -> Fault {
        if invalid.is_too_many() {
            let (most, items) = (self.limits.items, signal.items());
            let detail = format!("the request has more than {most} {items}; send smaller batches");
            return Fault::new(fault::Kind::TooLarge, "too_many_items", detail);
        }
        let what = otlp::describe(request, signal, invalid);
        Fault::invalid("message_malformed", format!("the message is malformed: {what}"))
    }

    /// How many resources the request has.
    fn resources(&self, request: &[u8]) -> Result<usize, Fault> {
        let most = self.limits.resources;
        let count = otlp::count_resources(request, most + 1);
        if count > most {
            let detail = format!("the request has more than {most} resources; send smaller batches");
            return Err(Fault::new(fault::Kind::TooLarge, "too_many_resources", detail));
        }
        Ok(count)
    }

    /// Names each resource that has items; tells of it, and looks whether its lane has room.
    fn name(&self, walk: &Walk<'_>, signal: Signal, sender: &Sender, received: u64) -> Result<Vec<Rc<Named>>, Fault> {
        let mut known: HashMap<&[u8], Rc<Named>> = HashMap::new();
        let mut all = Vec::with_capacity(walk.resources.len());
        for checked in walk.resources.iter().filter(|checked| checked.items > 0) {
            let resource = checked.resource();
            if let Some(named) = resource.and_then(|resource| known.get(resource)) {
                all.push(Rc::clone(named));
                continue;
            }
            let mut labels = crate::seen::labels(checked.attributes());
            let named = naming::name(sender, signal, &mut labels, self.shards)?;
            self.note(sender, &named, &labels, received, Detail::Full);
            self.backlog.check(&named.lane)?;
            let named = Rc::new(named);
            if let Some(resource) = resource.filter(|_| walk.resources.len() > 1) {
                known.insert(resource, Rc::clone(&named));
            }
            all.push(named);
        }
        Ok(all)
    }

    pub(crate) fn note(
        &self,
        sender: &Sender,
        named: &Named,
        labels: &naming::Labels<'_>,
        received: u64,
        detail: Detail,
    ) {
        let seen = named.described(&sender.tenant, labels, received);
        self.heartbeats.note(&sender.tenant, std::iter::once(named.id).chain(named.agent()));
        self.sightings.note(&seen, detail);
    }
}

/// What one piece of a request may be, before its stamp.
pub(crate) const MOST: Most = Most { bytes: MAX_BODY - STAMP_ROOM, items: MAX_ITEMS };

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn random_batch() -> Result<BatchId, Fault> {
    BatchId::random().map_err(|error| Fault::internal(anyhow::anyhow!("get random bytes: {error}")))
}

/// What a client is told about refused items, and what else it should know.
#[must_use]
pub fn explain(taken: &Taken) -> String {
    let reasons = taken.refused.iter().map(|(reason, count)| format!("{count} refused: {}", reason.advice()));
    reasons.chain(taken.warning.clone()).collect::<Vec<_>>().join("; ")
}

/// Limits under which a single item could be too large for any envelope.
#[must_use]
pub fn too_large_for_an_envelope(limits: &Limits) -> bool {
    /// Keys and lengths of four levels.
    const FRAMING: usize = 64;
    limits.largest().saturating_add(FRAMING) > MOST.bytes
}
