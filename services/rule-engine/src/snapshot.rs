//! What is kept of an evaluation, as bytes: Zstandard over protobuf, so that an older or newer version can read it.

use std::sync::Arc;

use prost::Message;
use series::{Series, Type};
use uuid::Uuid;

use crate::book::Book;
use crate::evaluation::{Bound, Match, Phase, Resource, Watched};
use crate::rule::Rule;

/// A snapshot that claims more is damaged: a million series with labels stay below it.
const MAX_BYTES: usize = 1 << 30;

/// An evaluation without its rules, which are named by id and version.
#[derive(Clone, PartialEq, Message)]
pub struct Saved {
    #[prost(message, repeated, tag = "1")]
    pub(crate) series: Vec<SavedSeries>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) matches: Vec<SavedMatch>,
    /// Newest receipt on either stream, Unix nanoseconds.
    #[prost(fixed64, tag = "3")]
    pub(crate) stream_time: u64,
    /// Newest receipt of metrics, Unix seconds.
    #[prost(uint64, tag = "4")]
    pub(crate) metrics_seconds: u64,
    /// Parts of log batches that were seen last.
    #[prost(fixed64, repeated, tag = "5")]
    pub(crate) batches: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedSeries {
    #[prost(fixed64, tag = "1")]
    hash: u64,
    #[prost(int64, tag = "2")]
    last_ms: i64,
    #[prost(uint64, tag = "3")]
    seen: u64,
    /// Without those that are inactive.
    #[prost(message, repeated, tag = "4")]
    bound: Vec<SavedBound>,
    /// Only where something fires: it may have to be told that it is over before another sample comes.
    #[prost(message, optional, tag = "5")]
    labels: Option<SavedLabels>,
}

#[derive(Clone, PartialEq, Message)]
struct SavedBound {
    #[prost(bytes = "vec", tag = "1")]
    rule_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(bool, tag = "3")]
    fires: bool,
    #[prost(int64, tag = "4")]
    since_ms: i64,
    #[prost(double, tag = "5")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct SavedLabels {
    /// Name and value in turn.
    #[prost(string, repeated, tag = "1")]
    pairs: Vec<String>,
    #[prost(string, tag = "2")]
    resource_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedMatch {
    #[prost(bytes = "vec", tag = "1")]
    rule_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(fixed64, tag = "3")]
    resource: u64,
    #[prost(message, optional, tag = "4")]
    labels: Option<SavedLabels>,
    #[prost(bool, tag = "5")]
    fires: bool,
    #[prost(fixed64, tag = "6")]
    since: u64,
    #[prost(fixed64, tag = "7")]
    newest: u64,
    #[prost(fixed64, tag = "8")]
    received: u64,
    #[prost(fixed64, tag = "9")]
    told: u64,
    #[prost(string, tag = "10")]
    line: String,
}

/// The bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Damaged {
    #[error("the state does not decompress")]
    Compression(#[from] std::io::Error),
    #[error("the state cannot be decoded")]
    Encoding(#[from] prost::DecodeError),
}

impl Saved {
    /// As it is kept.
    ///
    /// # Errors
    /// No memory for the compressor.
    pub fn to_bytes(&self) -> std::io::Result<Vec<u8>> {
        zstd::stream::encode_all(self.encode_to_vec().as_slice(), 1)
    }

    /// From what was kept.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
        let mut plain = Vec::new();
        let decoder = zstd::stream::Decoder::new(bytes)?;
        std::io::Read::read_to_end(&mut std::io::Read::take(decoder, limit), &mut plain)?;
        Ok(Self::decode(plain.as_slice())?)
    }
}

impl SavedSeries {
    pub(crate) fn of(hash: u64, seen: u64, watched: &Watched) -> Self {
        let bound: Vec<SavedBound> = watched.bound.iter().filter_map(SavedBound::of).collect();
        let fires = bound.iter().any(|bound| bound.fires);
        let labels = watched.series.as_ref().filter(|_| fires);
        let labels = labels.map(|series| SavedLabels::of(series.labels(), series.resource_id()));
        Self { hash, last_ms: watched.last_ms, seen, bound, labels }
    }

    /// The series' hash, when it was last seen, and what rules think of it.
    pub(crate) fn into_watched(self, book: &Book) -> (u64, u64, Watched) {
        let bound = self.bound.into_iter().filter_map(|bound| bound.into_bound(book));
        let watched = Watched {
            last_ms: self.last_ms,
            bound: bound.collect(),
            series: self.labels.map(|labels| Arc::new(labels.series())),
        };
        (self.hash, self.seen, watched)
    }
}

impl SavedBound {
    fn of(bound: &Bound) -> Option<Self> {
        let (fires, since_ms) = match bound.phase {
            Phase::Inactive => return None,
            Phase::Pending { since_ms } => (false, since_ms),
            Phase::Firing { since_ms } => (true, since_ms),
        };
        Some(Self {
            rule_id: bound.rule.id.into_bytes().to_vec(),
            version: bound.rule.version,
            fires,
            since_ms,
            value: bound.value,
        })
    }

    fn into_bound(self, book: &Book) -> Option<Bound> {
        let rule = find(book, &self.rule_id, self.version)?;
        let since_ms = self.since_ms;
        let phase = if self.fires { Phase::Firing { since_ms } } else { Phase::Pending { since_ms } };
        Some(Bound { rule, phase, value: self.value })
    }
}

impl SavedLabels {
    fn of<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>, resource_id: &str) -> Self {
        let pairs = labels.flat_map(|(name, value)| [name.to_owned(), value.to_owned()]);
        Self { pairs: pairs.collect(), resource_id: resource_id.to_owned() }
    }

    fn labels(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.pairs.as_chunks::<2>().0.iter().map(|[name, value]| (name.as_str(), value.as_str()))
    }

    fn series(&self) -> Series {
        // Nobody asks a restored series whether it counts: its next sample brings the real one.
        Series::new(Type::Gauge, self.labels())
    }
}

impl SavedMatch {
    pub(crate) fn of(found: &Match) -> Self {
        Self {
            rule_id: found.rule.id.into_bytes().to_vec(),
            version: found.rule.version,
            resource: found.resource.hash,
            labels: Some(SavedLabels::of(found.resource.labels(), &found.resource.id)),
            fires: found.fires,
            since: found.since,
            newest: found.newest,
            received: found.received,
            told: found.told,
            line: found.line.clone(),
        }
    }

    pub(crate) fn into_match(self, book: &Book) -> Option<((Uuid, u64), Match)> {
        let rule = find(book, &self.rule_id, self.version)?;
        let labels = self.labels.unwrap_or_default();
        let resource = Arc::new(Resource {
            hash: self.resource,
            labels: labels.labels().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            id: labels.resource_id,
        });
        let found = Match {
            fires: self.fires,
            since: self.since,
            newest: self.newest,
            received: self.received,
            told: self.told,
            line: self.line,
            resource,
            rule,
        };
        Some(((found.rule.id, found.resource.hash), found))
    }
}

/// A snapshot is read with the rules that it was made with, so that this finds every rule.
fn find(book: &Book, id: &[u8], version: u64) -> Option<Arc<Rule>> {
    let id = Uuid::from_slice(id).ok();
    let found = id.and_then(|id| book.rule(id)).filter(|rule| rule.version == version);
    if found.is_none() {
        tracing::warn!(?id, version, "the snapshot names a rule that was not in force; its state is dropped");
    }
    found.map(Arc::clone)
}
