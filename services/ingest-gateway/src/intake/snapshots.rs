//! Taking process snapshots: read, named, split, then handed over as often as it takes.

use std::sync::Arc;

use bytes::Bytes;
use fault::Fault;
use model::BatchId;
use prost::Message as _;
use proto::gosight::ProcessPayload;
use proto::telemetry::ProcessBatch;

use super::{Intake, MOST, now, random_batch};
use crate::admission::Hold;
use crate::collector::{Lane, Part, all_acknowledged};
use crate::metrics::Signal;
use crate::naming;
use crate::processes::{self, Size};
use crate::seen::Detail;
use crate::sender::Sender;

/// Reading more than that takes long enough to disturb the other connections of the thread.
const INLINE: usize = 64 << 10;

/// A snapshot that is ready to be handed over, any number of times: it is always the same batch.
pub struct Snapshot {
    lane: Lane,
    /// `ProcessBatch` messages.
    bodies: Vec<Vec<u8>>,
    received_unix_nano: u64,
    /// The agent that took it.
    pub agent_id: Option<String>,
    hold: Arc<Hold>,
}

impl Intake {
    /// Reads an agent's process snapshot. `hold` has room for its bytes.
    ///
    /// # Errors
    /// It is malformed, or too large.
    pub async fn snapshot(&self, raw: Bytes, sender: &Sender, hold: Hold) -> Result<Snapshot, Fault> {
        self.metrics.received(Signal::Processes, raw.len());
        if raw.len() <= INLINE {
            return self.read(&raw, sender, hold);
        }
        let (intake, sender) = (self.clone(), sender.clone());
        self.heavy.run(move || intake.read(&raw, &sender, hold)).await?
    }

    /// Waits until the broker has the snapshot.
    ///
    /// # Errors
    /// It is not known to have it.
    pub async fn hand_over_snapshot(&self, snapshot: &Snapshot) -> Result<(), Fault> {
        self.backlog.check(&snapshot.lane)?;
        let receipts = snapshot.bodies.iter().map(|body| {
            let part = Part {
                size: body.len(),
                write: &|out| out.extend_from_slice(body),
                items: 1,
                received_unix_nano: snapshot.received_unix_nano,
            };
            self.collector.submit(&snapshot.lane, &part, &snapshot.hold)
        });
        all_acknowledged(receipts.collect()).await
    }

    fn read(&self, raw: &[u8], sender: &Sender, mut hold: Hold) -> Result<Snapshot, Fault> {
        let received = now();
        let malformed = || Fault::invalid("message_malformed", "raw_payload is no ProcessPayload");
        let size = Size::of(raw).map_err(|_| malformed())?;
        if size.processes > self.processes {
            let detail = format!("a snapshot has more than {} processes", self.processes);
            return Err(Fault::new(fault::Kind::TooLarge, "too_many_processes", detail));
        }
        let mut room = hold.beside();
        room.grow(size.bytes_in_memory())?;
        let payload = ProcessPayload::decode(raw).map_err(|_| malformed())?;
        let batch = match payload.timestamp {
            Some(_) => BatchId::from_bytes(&sender.identity(), raw),
            None => random_batch()?,
        };
        let mut labels = processes::labels(&payload);
        let named = naming::name(sender, Signal::Processes, &mut labels, self.shards)?;
        self.note(sender, &named, &labels, received, Detail::Sparse);
        drop(labels);
        let agent = named.agent_id.as_deref().unwrap_or_default();
        let parts = processes::snapshots(payload, named.id, agent, batch, received, MOST.bytes);
        let bodies = parts.into_iter().map(|part| ProcessBatch { snapshots: vec![part] }.encode_to_vec());
        let bodies: Vec<Vec<u8>> = bodies.collect();
        // What stays is the bodies; the message that they were made of goes.
        hold.grow(bodies.iter().map(Vec::len).sum())?;
        hold.shrink(raw.len());
        Ok(Snapshot {
            lane: named.lane,
            bodies,
            received_unix_nano: received,
            agent_id: named.agent_id,
            hold: Arc::new(hold),
        })
    }
}
