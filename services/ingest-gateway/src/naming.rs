//! What a resource of a request is about: its resource's id, its agent, its lane, and the batch that it belongs to.

use std::borrow::Cow;
use std::sync::Arc;

use fault::Fault;
use model::{BatchId, ClientBatch, ResourceId, identify, shard};
use otlp::{Stamp, Walk};

use crate::collector::Lane;
use crate::intake::random_batch;
use crate::metrics::Signal;
use crate::seen::{Described, agent_resource};
use crate::sender::Sender;

const LONGEST_AGENT_ID: usize = 256;

/// A resource's attributes as texts.
pub type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// A resource with all that is derived from it.
pub struct Named {
    pub id: ResourceId,
    pub agent_id: Option<String>,
    pub lane: Lane,
    stamp: Stamp,
}

impl Named {
    /// What is added to a piece about it; `batch` names the records of a piece that has some.
    pub(crate) fn stamp(&self, batch: Option<(BatchId, usize)>) -> Stamp {
        let stamp = self.stamp.clone();
        match batch {
            None => stamp,
            Some((batch, number)) => {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                stamp.text("sightline.batch.id", &batch.to_string()).int("sightline.batch.part", number)
            }
        }
    }

    /// The agent that reports it, as a resource.
    pub(crate) fn agent(&self) -> Option<ResourceId> {
        self.agent_id.as_deref().map(|agent| agent_resource(&self.lane.tenant, agent))
    }

    pub(crate) fn described<'a>(
        &'a self,
        tenant: &'a Arc<str>,
        labels: &'a Labels<'a>,
        now_unix_nano: u64,
    ) -> Described<'a> {
        Described { tenant, id: self.id, agent_id: self.agent_id.as_deref(), labels, now_unix_nano }
    }
}

/// Names what `labels` describe, after it was settled which agent reports it.
///
/// # Errors
/// The agent's id is too long.
pub fn name(sender: &Sender, signal: Signal, labels: &mut Labels<'_>, shards: u16) -> Result<Named, Fault> {
    let agent_id = settle_agent(sender, labels)?;
    let id = identify(&sender.tenant, labels.iter().map(|(key, value)| (*key, value.as_ref()))).id;
    let mut stamp =
        Stamp::new().text("sightline.resource.id", &id.to_string()).text("sightline.resource.kind", id.kind().as_str());
    if let Some(agent_id) = &agent_id {
        stamp = stamp.text("sightline.agent.id", agent_id);
    }
    let lane = Lane { signal, shard: shard(&sender.tenant, &id, shards), tenant: Arc::clone(&sender.tenant) };
    Ok(Named { id, agent_id, lane, stamp })
}

/// The agent that reports: the credential's, whatever the data claims; without one, the one that the data names.
fn settle_agent(sender: &Sender, labels: &mut Labels<'_>) -> Result<Option<String>, Fault> {
    if let Some(agent) = sender.agent() {
        for (_, value) in labels.iter_mut().filter(|(key, _)| *key == "agent.id") {
            *value = agent.to_owned().into();
        }
        return Ok(Some(agent.to_owned()));
    }
    let claimed = labels.iter().rfind(|(key, value)| *key == "agent.id" && !value.is_empty());
    let Some((_, claimed)) = claimed else { return Ok(None) };
    if claimed.len() > LONGEST_AGENT_ID {
        let detail = format!("the resource's agent.id is longer than {LONGEST_AGENT_ID} bytes");
        return Err(Fault::invalid("agent_id_too_long", detail));
    }
    Ok(Some(claimed.to_string()))
}

/// What names the request's records for ever. `header` is `sightline-batch`.
///
/// # Errors
/// The header cannot be read.
pub fn batch_id(walk: &Walk<'_>, request: &[u8], sender: &Sender, header: Option<&str>) -> Result<BatchId, Fault> {
    if let Some(header) = header {
        let claimed = || {
            let mut attributes = walk.resources.iter().flat_map(otlp::Checked::attributes);
            let agent = attributes.find(|attribute| attribute.key == "agent.id")?;
            agent.value.as_str().filter(|_| sender.may_claim())
        };
        if let Some(agent) = sender.agent().or_else(claimed) {
            let batch = ClientBatch::parse(header).ok_or_else(|| {
                Fault::invalid("batch_malformed", "sightline-batch must be <boot>-<sequence>, such as 4f2a91c0-17")
            })?;
            return Ok(BatchId::from_agent(agent, batch, request));
        }
    }
    if walk.resources.iter().any(|resource| resource.timed) {
        Ok(BatchId::from_bytes(&sender.identity(), request))
    } else {
        random_batch()
    }
}
