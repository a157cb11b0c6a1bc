//! The labels of a series.
//!
//! Every series has `tenant`, `resource_id`, `kind`, `host_name` and `service_name` (those that are not empty) and its
//! point's attributes. An attribute that would take one of those names becomes `exported_<name>`, as Prometheus does with
//! a target's own labels, so that two series never melt into one and nobody writes another tenant's label.

use std::fmt;

use prost::encoding::{decode_varint, encode_varint};

use model::label_name;

use crate::name::Type;

/// The most labels that one series has, `__name__` included: what VictoriaMetrics keeps by default
/// (`-maxLabelsPerTimeseries`). It would drop the rest by itself, and `tenant` sorts late.
pub const MAX_LABELS: usize = 30;

const OURS: [&str; 5] = ["tenant", "resource_id", "kind", "host_name", "service_name"];

/// `TimeSeries.labels` and `Label` of prometheus/prompb/types.proto: fields of length-delimited content.
const LABELS: u8 = 1 << 3 | 2;
const LABEL_NAME: u8 = 1 << 3 | 2;
const LABEL_VALUE: u8 = 2 << 3 | 2;

/// One series: its labels, prepared once and shared by all of its samples. Kept in one piece, in the form in which they are
/// written to a store.
#[derive(Clone, PartialEq, Eq)]
pub struct Series {
    encoded: Box<[u8]>,
    /// [`model::series_hash`] of the labels.
    pub hash: u64,
    /// Whether it counts.
    pub kind: Type,
}

impl Series {
    /// A series with these labels, which come sorted by name, without empty values.
    pub fn new<'a>(kind: Type, labels: impl IntoIterator<Item = (&'a str, &'a str), IntoIter: Clone>) -> Self {
        let labels = labels.into_iter();
        let mut encoded = Vec::with_capacity(256);
        let mut label = Vec::new();
        for (name, value) in labels.clone() {
            label.clear();
            put(&mut label, LABEL_NAME, name.as_bytes());
            put(&mut label, LABEL_VALUE, value.as_bytes());
            put(&mut encoded, LABELS, &label);
        }
        Self { encoded: encoded.into(), hash: model::series_hash(labels), kind }
    }

    /// The labels as the `labels` fields of a `prometheus.TimeSeries` (remote write).
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Name and value, sorted by name; no value is empty, no name occurs twice.
    #[must_use]
    pub fn labels(&self) -> Labels<'_> {
        Labels(&self.encoded)
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

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.labels()).finish()
    }
}

/// The labels of a series, one after the other.
#[derive(Debug, Clone)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let mut label = take(&mut self.0)?;
        Some((text(take(&mut label)?), text(take(&mut label)?)))
    }
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

/// The labels that a resource gives to all of its series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) tenant: String,
    pub(crate) resource_id: String,
    pub(crate) kind: String,
    pub(crate) host_name: String,
    pub(crate) service_name: String,
}

/// The extra label of a histogram's bucket (`le`) or a summary's quantile (`quantile`).
pub(crate) type Extra<'a> = Option<(&'static str, &'a str)>;

/// Prepares a series; `attributes` may come in any order. Also says how many labels were over the limit.
pub(crate) fn prepare(
    base: &Base,
    name: &str,
    kind: Type,
    attributes: Vec<(String, String)>,
    extra: Extra<'_>,
) -> (Series, u64) {
    let mut labels: Vec<(String, String)> = vec![("__name__".to_owned(), name.to_owned())];
    let ours = [&base.tenant, &base.resource_id, &base.kind, &base.host_name, &base.service_name];
    labels.extend(OURS.iter().zip(ours).map(|(name, value)| ((*name).to_owned(), value.clone())));
    labels.extend(extra.map(|(name, value)| (name.to_owned(), value.to_owned())));
    labels.retain(|(_, value)| !value.is_empty());
    let attributes = joined(attributes, extra.map(|(name, _)| name));
    let room = MAX_LABELS.saturating_sub(labels.len());
    let over = attributes.len().saturating_sub(room);
    labels.extend(attributes.into_iter().take(room));
    labels.sort_unstable();
    let series = Series::new(kind, labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    (series, over as u64)
}

/// Attributes as labels, sorted. Those whose names become the same are one label with the values joined by `;`, in the
/// order of the original names (the specification, section "Metric Attributes").
fn joined(mut attributes: Vec<(String, String)>, extra: Option<&str>) -> Vec<(String, String)> {
    attributes.sort_unstable();
    // A key that repeats is not allowed in OTLP; the first counts.
    attributes.dedup_by(|later, first| later.0 == first.0);
    let mut labels: Vec<(String, String)> = Vec::with_capacity(attributes.len());
    for (key, value) in attributes.into_iter().filter(|(_, value)| !value.is_empty()) {
        let mut name = label_name(&key);
        if OURS.contains(&name.as_str()) || extra == Some(name.as_str()) {
            name.insert_str(0, "exported_");
        }
        if name.is_empty() {
            name.push('_');
        }
        match labels.iter_mut().find(|(label, _)| *label == name) {
            Some((_, values)) => {
                values.push(';');
                values.push_str(&value);
            }
            None => labels.push((name, value)),
        }
    }
    labels.sort_unstable();
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Base {
        let text = |text: &str| text.to_owned();
        Base {
            tenant: text("acme"),
            resource_id: text("host-1"),
            kind: text("host"),
            host_name: text("web"),
            ..Base::default()
        }
    }

    fn labels(attributes: &[(&str, &str)], extra: Extra<'_>) -> String {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (series, _) = prepare(&base(), "up", Type::Gauge, attributes, extra);
        series.labels().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn labels_are_sorted_and_none_is_empty() {
        let expected = "Zone=z __name__=up a_b=1 host_name=web kind=host resource_id=host-1 tenant=acme";
        assert_eq!(labels(&[("a.b", "1"), ("empty", ""), ("Zone", "z")], None), expected);
    }

    #[test]
    fn nobody_writes_our_labels() {
        let text =
            labels(&[("tenant", "other"), ("resource.id", "x"), ("service.name", "s"), ("__name__", "down")], None);
        let expected = "__name__=up _name_=down exported_resource_id=x exported_service_name=s exported_tenant=other \
                        host_name=web kind=host resource_id=host-1 tenant=acme";
        assert_eq!(text, expected);
        assert!(labels(&[("le", "x")], Some(("le", "5"))).contains("exported_le=x host_name=web kind=host le=5"));
    }

    #[test]
    fn names_that_become_the_same_are_joined_in_order_of_the_originals() {
        assert!(labels(&[("a_b", "3"), ("a.b", "2"), ("a-b", "1")], None).contains(" a_b=1;2;3 "));
    }

    #[test]
    fn too_many_labels_are_cut_without_losing_ours() {
        let attributes = (0..40).map(|n| (format!("a{n:02}"), "x".to_owned())).collect();
        let (series, over) = prepare(&base(), "up", Type::Gauge, attributes, None);
        assert_eq!((series.labels().count(), over), (MAX_LABELS, 15));
        assert_eq!((series.label("tenant"), series.label("a24"), series.label("a25")), ("acme", "x", ""));
    }
}
