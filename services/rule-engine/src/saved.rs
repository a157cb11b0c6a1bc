//! What is kept of an evaluation, as bytes: Zstandard over protobuf, a part at a time.
//!
//! A part names rules by id and evaluated version, and holds what each thinks as bytes of the rule's kind, under a number of
//! that kind's own: a version that does not know the kind or the number writes the same bytes again. Beside them stands what
//! the lane itself must know of everything that fires.

use std::sync::Arc;

use prost::Message;
use uuid::Uuid;

use crate::evaluation::{Changes, Firing, Part, part_subjects};
use crate::naming::Labels;
use crate::rule::Rule;
use crate::transition::{Facts, Id};

/// No part is larger before it is compressed: what claims more is damaged, and what would become more is not written.
pub const MAX_PART_BYTES: usize = 64 << 20;

/// An evaluation as it was at one moment, not yet in bytes.
pub struct Snapshot {
    /// The rules that it was made with.
    pub revision: i64,
    /// The lane's time, Unix nanoseconds.
    pub stream_time: u64,
    /// The number of its last decision.
    pub order: u64,
    /// Parts of log batches that were seen last, where there are others than before.
    pub batches: Option<Vec<u64>>,
    pub(crate) subjects: Changes,
}

/// An evaluation without its rules.
#[derive(Debug, Default)]
pub struct Saved {
    /// The lane's time, Unix nanoseconds.
    pub stream_time: u64,
    /// The number of its last decision.
    pub order: u64,
    /// Parts of log batches that were seen last.
    pub batches: Vec<u64>,
    pub(crate) subjects: Vec<SavedSubject>,
}

/// A part in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Which one.
    pub part: usize,
    /// Its bytes; empty where nothing is in it.
    pub bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct SavedPart {
    #[prost(message, repeated, tag = "1")]
    subjects: Vec<SavedSubject>,
}

#[derive(Clone, PartialEq, Message)]
struct SavedBatches {
    #[prost(fixed64, repeated, tag = "1")]
    parts: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedSubject {
    #[prost(fixed64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) tenant: String,
    #[prost(fixed64, tag = "3")]
    pub(crate) seen: u64,
    /// Name and value in turn. Only where something fires: it may have to be told that it is over before more is heard.
    #[prost(string, repeated, tag = "4")]
    pub(crate) identifying: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub(crate) descriptive: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) bound: Vec<SavedBound>,
    /// When it is looked at next: its place in the queue, so that what is due together is told in the same order again.
    #[prost(fixed64, tag = "7")]
    pub(crate) queued: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedBound {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) rule_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(crate) evaluated_version: u64,
    #[prost(string, tag = "3")]
    pub(crate) kind: String,
    /// The number of the form that `state` has.
    #[prost(uint32, tag = "4")]
    pub(crate) form: u32,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) state: Vec<u8>,
    /// The last transition; empty where none is known.
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) last: Vec<u8>,
    /// Only while it fires.
    #[prost(message, optional, tag = "7")]
    pub(crate) firing: Option<SavedFiring>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedFiring {
    #[prost(uint64, tag = "1")]
    pub(crate) order: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) sample: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) since: u64,
    #[prost(fixed64, tag = "4")]
    pub(crate) received: u64,
    #[prost(bool, tag = "5")]
    pub(crate) late: bool,
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) previous: Vec<u8>,
}

/// The bytes are no part of a snapshot, or would not be.
#[derive(Debug, thiserror::Error)]
pub enum Damaged {
    #[error("a part of the state does not decompress")]
    Compression(#[from] std::io::Error),
    #[error("a part of the state cannot be decoded")]
    Encoding(#[from] prost::DecodeError),
    #[error("a part of the state has {0} bytes, and more than {MAX_PART_BYTES} could not be read again")]
    TooLarge(usize),
}

impl Snapshot {
    /// The parts that changed, in bytes. Takes time; not for an async thread.
    ///
    /// # Errors
    /// A part is too large to be read again.
    pub fn write(&self) -> Result<Vec<Written>, Damaged> {
        let changes = &self.subjects;
        changes.parts.iter().map(|(part, content)| Self::write_part(*part, content, &changes.rules)).collect()
    }

    /// Which parts changed.
    #[must_use]
    pub fn changed(&self) -> Vec<usize> {
        self.subjects.parts.iter().map(|(part, _)| *part).collect()
    }

    fn write_part(part: usize, content: &Part, rules: &[Option<Arc<Rule>>]) -> Result<Written, Damaged> {
        let subjects = part_subjects(content, rules);
        if subjects.is_empty() {
            return Ok(Written { part, bytes: Vec::new() });
        }
        Ok(Written { part, bytes: pack(&SavedPart { subjects })? })
    }

    /// The batches, in bytes, where there are others than before.
    ///
    /// # Errors
    /// No memory for the compressor.
    pub fn write_batches(&self) -> Result<Option<Vec<u8>>, Damaged> {
        self.batches.as_ref().map(|parts| pack(&SavedBatches { parts: parts.clone() })).transpose()
    }
}

impl Saved {
    /// Adds a part.
    ///
    /// # Errors
    /// The bytes are something else; then nothing was added.
    pub fn add_part(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        self.subjects.extend(unpack::<SavedPart>(bytes)?.subjects);
        Ok(())
    }

    /// Adds the batches.
    ///
    /// # Errors
    /// The bytes are something else; then nothing was added.
    pub fn add_batches(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        self.batches = unpack::<SavedBatches>(bytes)?.parts;
        Ok(())
    }
}

fn pack(message: &impl Message) -> Result<Vec<u8>, Damaged> {
    let bytes = message.encode_to_vec();
    if bytes.len() > MAX_PART_BYTES {
        return Err(Damaged::TooLarge(bytes.len()));
    }
    Ok(zstd::stream::encode_all(bytes.as_slice(), 1)?)
}

fn unpack<M: Message + Default>(bytes: &[u8]) -> Result<M, Damaged> {
    let limit = u64::try_from(MAX_PART_BYTES).unwrap_or(u64::MAX);
    let mut plain = Vec::new();
    let decoder = zstd::stream::Decoder::new(bytes)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(decoder, limit + 1), &mut plain)?;
    if plain.len() > MAX_PART_BYTES {
        return Err(Damaged::TooLarge(plain.len()));
    }
    Ok(M::decode(plain.as_slice())?)
}

impl SavedSubject {
    pub(crate) fn labels(&self) -> Option<Labels> {
        let has = !self.identifying.is_empty() || !self.descriptive.is_empty();
        has.then(|| Labels { identifying: pairs(&self.identifying), descriptive: pairs(&self.descriptive) })
    }
}

/// Names and values in turn.
pub(crate) fn flat(labels: Vec<(String, String)>) -> Vec<String> {
    labels.into_iter().flat_map(|(name, value)| [name, value]).collect()
}

fn pairs(flat: &[String]) -> Vec<(String, String)> {
    flat.as_chunks::<2>().0.iter().map(|[name, value]| (name.clone(), value.clone())).collect()
}

impl SavedBound {
    pub(crate) fn rule(&self) -> Option<Uuid> {
        Uuid::from_slice(&self.rule_id).ok()
    }

    pub(crate) fn version(&self) -> u64 {
        self.evaluated_version
    }

    pub(crate) fn last_id(&self) -> Option<Id> {
        self.last.as_slice().try_into().ok()
    }

    pub(crate) fn firing(&self) -> Option<&SavedFiring> {
        self.firing.as_ref()
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.rule_id.len() + self.kind.len() + self.state.len() + self.last.len()
    }
}

impl SavedFiring {
    pub(crate) fn of(firing: &Firing) -> Self {
        let Facts { sample, since, received, late } = firing.facts;
        let previous = firing.previous.map(|id| id.to_vec()).unwrap_or_default();
        Self { order: firing.order, sample, since, received, late, previous }
    }

    pub(crate) fn into_firing(self, id: Id) -> Firing {
        let Self { order, sample, since, received, late, previous } = self;
        let facts = Facts { sample, since, received, late };
        Firing { id, previous: previous.try_into().ok(), order, facts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_parts_are_told_apart_and_add_nothing() {
        let part = SavedPart { subjects: vec![SavedSubject { id: 7, ..SavedSubject::default() }] };
        let bytes = pack(&part).unwrap();
        let mut saved = Saved::default();
        saved.add_part(&bytes).unwrap();
        assert_eq!(saved.subjects, part.subjects);
        assert!(matches!(saved.add_part(&bytes[..bytes.len() - 2]), Err(Damaged::Compression(_))));
        assert!(matches!(saved.add_part(b"no frame"), Err(Damaged::Compression(_))));
        let nonsense = zstd::stream::encode_all([0xff_u8; 9].as_slice(), 1).unwrap();
        assert!(matches!(saved.add_part(&nonsense), Err(Damaged::Encoding(_))));
        // 64 KiB that become more than 64 MiB.
        let bomb = zstd::stream::encode_all(vec![0_u8; MAX_PART_BYTES + 10].as_slice(), 1).unwrap();
        assert!(matches!(saved.add_part(&bomb), Err(Damaged::TooLarge(_))), "{} bytes", bomb.len());
        assert_eq!(saved.subjects.len(), 1);
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let subject = SavedSubject { identifying: vec!["x".repeat(MAX_PART_BYTES)], ..SavedSubject::default() };
        assert!(matches!(pack(&SavedPart { subjects: vec![subject] }), Err(Damaged::TooLarge(_))));
    }
}
