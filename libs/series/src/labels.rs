//! One series: its labels, prepared once and shared by all of its samples.

use std::fmt;
use std::sync::Arc;

use prost::encoding::{decode_varint, encode_varint};

use crate::name::Type;

/// `TimeSeries.labels` and `Label` of prometheus/prompb/types.proto: fields of length-delimited content.
const LABELS: u8 = 1 << 3 | 2;
const LABEL_NAME: u8 = 1 << 3 | 2;
const LABEL_VALUE: u8 = 2 << 3 | 2;

/// One series. Its labels are kept in the form in which they are written to a store: in one piece, or, where a point has many
/// series, apart from what these have in common.
#[derive(Clone)]
pub struct Series {
    own: Box<[u8]>,
    common: Option<Arc<Common>>,
    /// [`model::series_hash`] of the labels.
    pub hash: u64,
    /// Whether it counts.
    pub kind: Type,
}

/// The labels that all series of one point have, sorted: without `__name__`, and without the bound or quantile.
#[derive(PartialEq, Eq)]
pub(crate) struct Common {
    encoded: Box<[u8]>,
    /// Where `__name__` belongs.
    name_at: usize,
    /// Where `le` or `quantile` belongs, where a series has it.
    extra_at: usize,
}

impl Common {
    /// `labels` come sorted; `extra` is the name of the label that tells the series apart.
    pub(crate) fn new<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>, extra: &str) -> Arc<Self> {
        let mut common = Self { encoded: Box::default(), name_at: 0, extra_at: 0 };
        let mut encoded = Vec::with_capacity(256);
        for (name, value) in labels {
            put_label(&mut encoded, name, value);
            if name < "__name__" {
                common.name_at = encoded.len();
            }
            if name < extra {
                common.extra_at = encoded.len();
            }
        }
        common.encoded = encoded.into();
        Arc::new(common)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.encoded.len()
    }
}

impl Series {
    /// A series with these labels, which come sorted by name, without empty values.
    pub fn new<'a>(kind: Type, labels: impl IntoIterator<Item = (&'a str, &'a str), IntoIter: Clone>) -> Self {
        let labels = labels.into_iter();
        let mut encoded = Vec::with_capacity(256);
        labels.clone().for_each(|(name, value)| put_label(&mut encoded, name, value));
        Self { own: encoded.into(), common: None, hash: model::series_hash(labels), kind }
    }

    /// One of a point's several series: their common labels, its name, and its bound or quantile.
    pub(crate) fn of(common: &Arc<Common>, kind: Type, name: &str, extra: Option<(&str, &str)>) -> Self {
        let mut own = Vec::with_capacity(64);
        put_label(&mut own, "__name__", name);
        if let Some((name, value)) = extra {
            put_label(&mut own, name, value);
        }
        let mut series = Self { own: own.into(), common: Some(Arc::clone(common)), hash: 0, kind };
        series.hash = model::series_hash(series.labels());
        series
    }

    /// The labels as the `labels` fields of a `prometheus.TimeSeries` (remote write), in pieces that follow each other.
    #[must_use]
    pub fn encoded(&self) -> [&[u8]; 5] {
        let own = &*self.own;
        let Some(common) = &self.common else { return [own, &[], &[], &[], &[]] };
        let mut rest = own;
        // The first of its own is the name.
        take(&mut rest);
        let (name, extra) = own.split_at(own.len() - rest.len());
        let (name_at, extra_at) = (common.name_at, common.extra_at.max(common.name_at));
        let encoded = &common.encoded;
        [&encoded[..name_at], name, &encoded[name_at..extra_at], extra, &encoded[extra_at..]]
    }

    /// Bytes of [`encoded`](Self::encoded).
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.own.len() + self.common.as_ref().map_or(0, |common| common.bytes())
    }

    /// Bytes that are this series' alone.
    pub(crate) fn own_len(&self) -> usize {
        self.own.len()
    }

    /// Name and value, sorted by name; no value is empty, no name occurs twice.
    #[must_use]
    pub fn labels(&self) -> Labels<'_> {
        let [first, rest @ ..] = self.encoded();
        Labels { first, rest, next: 0 }
    }

    /// The value of a label, `""` when the series does not have it.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }

    /// The metric's name, `__name__`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.label("__name__")
    }

    /// What reported it; empty when the gateway did not stamp the resource.
    #[must_use]
    pub fn resource_id(&self) -> &str {
        self.label("resource_id")
    }
}

impl PartialEq for Series {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.kind == other.kind && self.has_labels_of(other)
    }
}

impl Eq for Series {}

impl Series {
    /// Whether it is the same series to a store.
    #[must_use]
    pub fn has_labels_of(&self, other: &Self) -> bool {
        match (&self.common, &other.common) {
            (None, None) => self.own == other.own,
            _ => self.encoded_len() == other.encoded_len() && self.labels().eq(other.labels()),
        }
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.labels()).finish()
    }
}

/// The labels of a series, one after the other.
#[derive(Debug, Clone)]
pub struct Labels<'a> {
    first: &'a [u8],
    rest: [&'a [u8]; 4],
    next: usize,
}

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        loop {
            if let Some(mut label) = take(&mut self.first) {
                return Some((text(take(&mut label)?), text(take(&mut label)?)));
            }
            self.first = self.rest.get(self.next)?;
            self.next += 1;
        }
    }
}

fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    let field = |content: usize| 1 + prost::encoding::encoded_len_varint(content as u64) + content;
    out.push(LABELS);
    encode_varint((field(name.len()) + field(value.len())) as u64, out);
    put(out, LABEL_NAME, name.as_bytes());
    put(out, LABEL_VALUE, value.as_bytes());
}

fn put(out: &mut Vec<u8>, key: u8, content: &[u8]) {
    out.push(key);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// The content of the next field. The fields are our own, so their keys need no second look.
fn take<'a>(fields: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = fields.get(1..)?;
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    let (content, rest) = rest.split_at_checked(length)?;
    *fields = rest;
    Some(content)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_in_pieces_is_the_same_as_in_one() {
        let all = [("Zone", "z"), ("a", "1"), ("kind", "host"), ("len", "2"), ("tenant", "t")];
        let common = Common::new(all.into_iter(), "le");
        let mut labels: Vec<_> = all.into_iter().chain([("__name__", "x_bucket"), ("le", "5")]).collect();
        labels.sort_unstable();
        let (one, several) = (
            Series::new(Type::Counter, labels.iter().copied()),
            Series::of(&common, Type::Counter, "x_bucket", Some(("le", "5"))),
        );
        assert_eq!(several.encoded().concat(), one.encoded().concat());
        assert_eq!(several.labels().collect::<Vec<_>>(), labels);
        assert_eq!((several.hash, several.encoded_len()), (one.hash, one.encoded_len()));
        assert_eq!(several, one);
        let sum = Series::of(&common, Type::Counter, "x_sum", None);
        assert_eq!((sum.name(), sum.label("le"), sum.label("tenant")), ("x_sum", "", "t"));
        assert_ne!(sum, several);
    }
}
