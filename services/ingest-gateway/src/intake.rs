//! From a request's bytes to parts of envelopes: checked, named, stamped, split, handed over.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fault::Fault;
use model::{BatchId, ClientBatch, ResourceId, identify, shard};
use otlp::{Limits, Piece, Refusals, Stamp, Walk, append_part, check_logs, check_metrics, split};
use prost::Message as _;
use proto::gosight::ProcessPayload;
use proto::telemetry::ProcessBatch;

use crate::admission::Hold;
use crate::backlog::Backlog;
use crate::collector::{Collector, Lane, MAX_BODY, Part, Receipt, all_acknowledged};
use crate::heartbeat::Heartbeats;
use crate::metrics::{Metrics, Signal};
use crate::processes;
use crate::seen::{Described, Detail, Sightings, agent_resource, labels};
use crate::sender::Sender;

/// Room for what is stamped on a piece, within [`MAX_BODY`].
const STAMP_ROOM: usize = 2 << 10;
const LONGEST_AGENT_ID: usize = 256;

/// What became of a request that was taken.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Items that the broker has.
    pub items: u64,
    /// Items that were refused, which the client is told.
    pub refused: Refusals,
}

/// Takes requests. Clones share everything.
#[derive(Clone)]
pub struct Intake {
    pub collector: Collector,
    pub backlog: Backlog,
    pub sightings: Sightings,
    pub heartbeats: Heartbeats,
    pub metrics: Metrics,
    pub limits: Limits,
    pub shards: u16,
}

/// One piece on its way into a lane.
struct Outbound<'a> {
    lane: Lane,
    piece: Piece<'a>,
    stamp: Stamp,
}

impl Intake {
    /// Takes an OTLP export request and waits until the broker has all of it. `batch` is the `sightline-batch` header.
    ///
    /// # Errors
    /// It is malformed, or not known to be with the broker.
    pub async fn otlp(
        &self,
        signal: otlp::Signal,
        request: Bytes,
        sender: &Sender,
        batch: Option<&str>,
        hold: Hold,
    ) -> Result<Taken, Fault> {
        let (receipts, taken) = self.hand_over(signal, &request, sender, batch, hold)?;
        drop(request);
        all_acknowledged(receipts).await?;
        Ok(taken)
    }

    fn hand_over(
        &self,
        signal: otlp::Signal,
        request: &[u8],
        sender: &Sender,
        batch: Option<&str>,
        hold: Hold,
    ) -> Result<(Vec<Receipt>, Taken), Fault> {
        let received_unix_nano = now();
        let (label, walk) = match signal {
            otlp::Signal::Metrics => (Signal::Metrics, check_metrics(request, &self.limits)),
            otlp::Signal::Logs => (Signal::Logs, check_logs(request, &self.limits)),
        };
        self.metrics.received(label, request.len());
        let walk = walk.map_err(|error| Fault::invalid("message_malformed", error.to_string()))?;
        let batch = match signal {
            otlp::Signal::Metrics => None,
            otlp::Signal::Logs => Some(batch_id(&walk, request, sender, batch)?),
        };
        let mut outbound = Vec::with_capacity(walk.parts.len());
        for part in walk.parts.iter().filter(|part| part.items > 0) {
            let mut labels = labels(part.attributes());
            let agent_id = self.settle_agent(sender, &mut labels)?;
            let id = identify(&sender.tenant, labels.iter().map(|(key, value)| (*key, value.as_ref()))).id;
            let agent_id = agent_id.as_deref();
            self.note(&sender.tenant, id, agent_id, &labels, received_unix_nano, Detail::Full);
            let lane = Lane {
                signal: label,
                shard: shard(&sender.tenant, &id, self.shards),
                tenant: Arc::clone(&sender.tenant),
            };
            self.backlog.check(&lane)?;
            for piece in split(part.kept(&self.limits), signal, part.items, MAX_BODY - STAMP_ROOM) {
                let number = u32::try_from(outbound.len()).unwrap_or(u32::MAX);
                let stamp = stamp(id, agent_id, batch.map(|batch| (batch, number)));
                outbound.push(Outbound { lane: lane.clone(), piece, stamp });
            }
        }
        self.metrics.refused(label, &walk.refused);
        let hold = Arc::new(hold);
        let receipts = outbound.iter().map(|one| {
            let part = Part {
                size: one.piece.content.len() + STAMP_ROOM,
                write: &|body| append_part(body, &one.piece.content, &one.stamp),
                items: one.piece.items,
                received_unix_nano,
            };
            self.collector.submit(&one.lane, &part, &hold)
        });
        Ok((receipts.collect(), Taken { items: walk.items, refused: walk.refused }))
    }

    /// Takes an agent's process snapshot and waits until the broker has it.
    ///
    /// # Errors
    /// It is malformed, or not known to be with the broker.
    pub async fn processes(&self, raw: &[u8], sender: &Sender, hold: Hold) -> Result<Taken, Fault> {
        let receipts = self.hand_over_processes(raw, sender, hold)?;
        let items = receipts.len() as u64;
        all_acknowledged(receipts).await?;
        Ok(Taken { items, refused: Refusals::default() })
    }

    fn hand_over_processes(&self, raw: &[u8], sender: &Sender, hold: Hold) -> Result<Vec<Receipt>, Fault> {
        let received_unix_nano = now();
        self.metrics.received(Signal::Processes, raw.len());
        let payload = ProcessPayload::decode(raw)
            .map_err(|_| Fault::invalid("message_malformed", "raw_payload is no ProcessPayload"))?;
        let batch = match payload.timestamp {
            Some(_) => BatchId::from_bytes(&sender.identity(), raw),
            None => random()?,
        };
        let mut labels = processes::labels(&payload);
        let agent_id = self.settle_agent(sender, &mut labels)?;
        let id = identify(&sender.tenant, labels.iter().map(|(key, value)| (*key, value.as_ref()))).id;
        let agent_id = agent_id.as_deref();
        self.note(&sender.tenant, id, agent_id, &labels, received_unix_nano, Detail::Sparse);
        let lane = Lane {
            signal: Signal::Processes,
            shard: shard(&sender.tenant, &id, self.shards),
            tenant: Arc::clone(&sender.tenant),
        };
        self.backlog.check(&lane)?;
        let agent_id = agent_id.unwrap_or_default().to_owned();
        drop(labels);
        let hold = Arc::new(hold);
        let snapshots = processes::snapshots(payload, id, &agent_id, batch, received_unix_nano, MAX_BODY - STAMP_ROOM);
        let receipts = snapshots.into_iter().map(|snapshot| {
            let body = ProcessBatch { snapshots: vec![snapshot] }.encode_to_vec();
            let part =
                Part { size: body.len(), write: &|out| out.extend_from_slice(&body), items: 1, received_unix_nano };
            self.collector.submit(&lane, &part, &hold)
        });
        Ok(receipts.collect())
    }

    /// The agent that reports: the credential's, whatever the data claims; without one, the one that the data names.
    fn settle_agent<'a>(
        &self,
        sender: &Sender,
        labels: &mut Vec<(&'a str, std::borrow::Cow<'a, str>)>,
    ) -> Result<Option<String>, Fault> {
        if let Some(agent) = sender.agent() {
            for (_, value) in labels.iter_mut().filter(|(key, _)| *key == "agent.id") {
                *value = agent.to_owned().into();
            }
            return Ok(Some(agent.to_owned()));
        }
        let claimed = labels.iter().find(|(key, value)| *key == "agent.id" && !value.is_empty());
        let Some((_, claimed)) = claimed else { return Ok(None) };
        if claimed.len() > LONGEST_AGENT_ID {
            let detail = format!("the resource's agent.id is longer than {LONGEST_AGENT_ID} bytes");
            return Err(Fault::invalid("agent_id_too_long", detail));
        }
        Ok(Some(claimed.to_string()))
    }

    fn note(
        &self,
        tenant: &Arc<str>,
        id: ResourceId,
        agent_id: Option<&str>,
        labels: &[(&str, std::borrow::Cow<'_, str>)],
        now_unix_nano: u64,
        detail: Detail,
    ) {
        let agent = agent_id.map(|agent| agent_resource(tenant, agent));
        self.heartbeats.note(tenant, std::iter::once(id).chain(agent));
        self.sightings.note(&Described { tenant, id, agent_id, labels, now_unix_nano }, detail);
    }
}

/// What names the request's records for ever.
fn batch_id(walk: &Walk<'_>, request: &[u8], sender: &Sender, header: Option<&str>) -> Result<BatchId, Fault> {
    if let Some(header) = header {
        let claimed = || {
            let mut attributes = walk.parts.iter().flat_map(otlp::Part::attributes);
            let agent = attributes.find(|attribute| attribute.key == "agent.id")?;
            agent.value.as_str().filter(|_| sender.is_anonymous())
        };
        if let Some(agent) = sender.agent().or_else(claimed) {
            let batch = ClientBatch::parse(header).ok_or_else(|| {
                Fault::invalid("batch_malformed", "sightline-batch must be <boot>-<sequence>, such as 4f2a91c0-17")
            })?;
            return Ok(BatchId::from_agent(agent, batch));
        }
    }
    if walk.parts.iter().any(|part| part.timed) {
        Ok(BatchId::from_bytes(&sender.identity(), request))
    } else {
        random()
    }
}

fn random() -> Result<BatchId, Fault> {
    BatchId::random().map_err(|error| Fault::internal(anyhow::anyhow!("get random bytes: {error}")))
}

fn stamp(id: ResourceId, agent_id: Option<&str>, batch: Option<(BatchId, u32)>) -> Stamp {
    let mut stamp =
        Stamp::new().text("sightline.resource.id", &id.to_string()).text("sightline.resource.kind", id.kind().as_str());
    if let Some(agent_id) = agent_id {
        stamp = stamp.text("sightline.agent.id", agent_id);
    }
    if let Some((batch, part)) = batch {
        stamp = stamp.text("sightline.batch.id", &batch.to_string()).int("sightline.batch.part", part);
    }
    stamp
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What a client is told about refused items.
#[must_use]
pub fn explain(refused: &Refusals) -> String {
    let reasons = refused.iter().map(|(reason, count)| format!("{count} refused: {}", reason.advice()));
    reasons.collect::<Vec<_>>().join("; ")
}
