//! From a point's attributes to labels.
//!
//! Every series has `tenant`, `resource_id`, `kind`, `host_name` and `service_name` (those that are not empty), its scope
//! (`otel_scope_name`, `otel_scope_version`, `otel_scope_attributes`; an agent's metrics have theirs in the name) and its
//! point's attributes. An attribute that would take one of those names becomes `exported_<name>`, as Prometheus does with
//! a target's own labels, so that two series never melt into one and nobody writes another tenant's label.

use std::borrow::Cow;

use model::{label_name, label_value, label_value_within};
use otlp::Attribute;

use crate::skip::Skip;

/// The most labels that one series has, `__name__` included: what VictoriaMetrics keeps by default
/// (`-maxLabelsPerTimeseries`). It would drop the rest by itself, and `tenant` sorts late.
pub const MAX_LABELS: usize = 30;

/// Bytes of one series' labels; VictoriaMetrics keeps no series above 64 KiB.
const MAX_LABEL_BYTES: usize = 60 << 10;

/// Labels that the attributes of a point do not take: `__name__`, those of the resource, those of the scope, a bound or quantile.
const OTHERS: usize = 1 + OURS.len() + SCOPES.len() + 1;

// What a gateway takes must never be skipped by who reads it.
const _: () = assert!(otlp::MOST_POINT_ATTRIBUTES + OTHERS <= MAX_LABELS);

const OURS: [&str; 5] = ["tenant", "resource_id", "kind", "host_name", "service_name"];
const SCOPES: [&str; 3] = ["otel_scope_name", "otel_scope_version", "otel_scope_attributes"];

/// Bytes of their values, in the same order. Every series of a point repeats them, so a point of a thousand buckets has them
/// a thousand times: what is longer is its beginning and a hash. A host's full name has at most 253 bytes.
const OURS_BYTES: [usize; OURS.len()] = [64, 64, 16, 255, 128];
const SCOPES_BYTES: [usize; SCOPES.len()] = [128, 64, 256];
/// Bytes of a metric's stored name without the ending of its series, and of a bound or quantile.
pub(crate) const NAME_BYTES: usize = 256;
pub(crate) const BOUND_BYTES: usize = 24;

// What a gateway counts for them is what they can be.
const _: () = assert!(otlp::LABELS_OF_OURS == labels_of_ours());

const fn labels_of_ours() -> usize {
    let mut bytes = "__name__".len() + NAME_BYTES + "_bucket".len() + "quantile".len() + BOUND_BYTES;
    let mut at = 0;
    while at < OURS.len() {
        bytes += OURS[at].len() + OURS_BYTES[at];
        at += 1;
    }
    at = 0;
    while at < SCOPES.len() {
        bytes += SCOPES[at].len() + SCOPES_BYTES[at];
        at += 1;
    }
    bytes
}

/// A label's name and value.
pub(crate) type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The labels that a resource gives to all of its series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) tenant: String,
    pub(crate) resource_id: String,
    pub(crate) kind: String,
    pub(crate) host_name: String,
    pub(crate) service_name: String,
}

impl Base {
    fn labels(&self) -> impl Iterator<Item = Label<'_>> {
        let values = [&*self.tenant, &self.resource_id, &self.kind, &self.host_name, &self.service_name];
        let label = |((name, value), bytes)| (Cow::Borrowed(name), label_value_within(value, bytes));
        OURS.into_iter().zip(values).zip(OURS_BYTES).map(label).filter(|(_, value)| !value.is_empty())
    }
}

/// What a scope gives to its series.
#[derive(Debug, Default)]
pub(crate) struct Scope<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    /// As sorted JSON, empty where there are none.
    pub(crate) attributes: String,
}

impl<'a> Scope<'a> {
    pub(crate) fn read(from: otlp::ScopeMetrics<'a>) -> Self {
        let attributes: std::collections::BTreeMap<&str, serde_json::Value> =
            from.attributes().map(|attribute| (attribute.key, attribute.value.json())).collect();
        let attributes = if attributes.is_empty() {
            String::new()
        } else {
            // Text keys and JSON values: this cannot fail.
            serde_json::to_string(&attributes).unwrap_or_default()
        };
        Self { name: from.name(), version: from.version(), attributes }
    }

    fn labels(&self) -> impl Iterator<Item = Label<'_>> {
        let values = [self.name, self.version, &self.attributes];
        let label = |((name, value), bytes)| (Cow::Borrowed(name), label_value_within(value, bytes));
        SCOPES.into_iter().zip(values).zip(SCOPES_BYTES).map(label).filter(|(_, value)| !value.is_empty())
    }
}

/// Attributes by key, sorted; of a key that repeats, which OTLP does not allow, the last counts.
pub(crate) fn by_key<'a>(attributes: impl Iterator<Item = Attribute<'a>>) -> Vec<(&'a str, Cow<'a, str>)> {
    let mut pairs: Vec<_> = attributes.map(|attribute| (attribute.key, attribute.value.text())).collect();
    // Stable, and the later one of two neighbours goes first.
    pairs.reverse();
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    pairs.dedup_by(|later, first| later.0 == first.0);
    pairs
}

/// The labels of a series but for its name, sorted; `extra` is the name of a label that is to come.
pub(crate) fn labels<'a>(
    base: &'a Base,
    scope: Option<&'a Scope<'a>>,
    attributes: &'a [(&'a str, Cow<'a, str>)],
    extra: Option<&str>,
) -> Result<Vec<Label<'a>>, Skip> {
    let mut labels = joined(attributes, extra);
    labels.extend(base.labels());
    labels.extend(scope.into_iter().flat_map(Scope::labels));
    labels.sort_unstable();
    if labels.len() + 1 + usize::from(extra.is_some()) > MAX_LABELS {
        return Err(Skip::TooManyLabels);
    }
    if bytes(&labels) > MAX_LABEL_BYTES {
        return Err(Skip::TooLarge);
    }
    Ok(labels)
}

/// The labels of `target_info`, sorted, and how many were cut: what a resource says about itself beyond the labels of its
/// series may be more than a series has room for, and the registry has it all.
pub(crate) fn target_info<'a>(base: &'a Base, attributes: &'a [(&'a str, Cow<'a, str>)]) -> (Vec<Label<'a>>, u64) {
    let mut labels = joined(attributes, None);
    let room = MAX_LABELS - OURS.len() - 1;
    let before = labels.len();
    labels.truncate(room);
    while bytes(&labels) > MAX_LABEL_BYTES / 2 {
        labels.pop();
    }
    let cut = before - labels.len();
    labels.extend(base.labels());
    labels.push((Cow::Borrowed("__name__"), Cow::Borrowed("target_info")));
    labels.sort_unstable();
    (labels, cut as u64)
}

fn bytes(labels: &[Label<'_>]) -> usize {
    labels.iter().map(|(name, value)| name.len() + value.len() + 8).sum()
}

/// Attributes as labels, sorted. Those whose names become the same are one label with the values joined by `;`, in the
/// order of the original names (the specification, section "Metric Attributes").
fn joined<'a>(attributes: &'a [(&'a str, Cow<'a, str>)], extra: Option<&str>) -> Vec<Label<'a>> {
    let mut labels: Vec<Label<'a>> = Vec::with_capacity(attributes.len() + OTHERS);
    let mut is_sorted = true;
    for (key, value) in attributes.iter().filter(|(_, value)| !value.is_empty()) {
        let name = name(key, extra);
        is_sorted &= labels.last().is_none_or(|(last, _)| *last < name);
        labels.push((name, Cow::Borrowed(value)));
    }
    if !is_sorted {
        // Stable: of one name, the values stay in the order of the original names.
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        labels.dedup_by(|later, first| {
            let is_same = later.0 == first.0;
            if is_same {
                let values = first.1.to_mut();
                values.push(';');
                values.push_str(&later.1);
            }
            is_same
        });
    }
    for (_, value) in &mut labels {
        if let Cow::Owned(changed) = label_value(value) {
            *value = Cow::Owned(changed);
        }
    }
    labels
}

fn name<'a>(key: &'a str, extra: Option<&str>) -> Cow<'a, str> {
    let is_plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.len() <= 100
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let name = if is_plain { Cow::Borrowed(key) } else { Cow::Owned(label_name(key)) };
    let is_taken = OURS.contains(&&*name) || extra == Some(&*name) || name.starts_with("otel_scope_");
    if is_taken { Cow::Owned(format!("exported_{name}")) } else { name }
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

    fn prepared(attributes: &[(&str, &str)], extra: Option<&str>) -> String {
        let mut attributes: Vec<_> = attributes.iter().map(|(key, value)| (*key, Cow::Borrowed(*value))).collect();
        attributes.sort();
        let base = base();
        let labels = labels(&base, None, &attributes, extra).expect("within the limits");
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn labels_are_sorted_and_none_is_empty() {
        let expected = "Zone=z a_b=1 host_name=web kind=host resource_id=host-1 tenant=acme";
        assert_eq!(prepared(&[("a.b", "1"), ("empty", ""), ("Zone", "z")], None), expected);
    }

    #[test]
    fn nobody_writes_our_labels() {
        let attributes = [
            ("tenant", "other"),
            ("resource.id", "x"),
            ("service.name", "s"),
            ("__name__", "down"),
            ("otel.scope.name", "n"),
        ];
        let expected = "_name_=down exported_otel_scope_name=n exported_resource_id=x exported_service_name=s \
                        exported_tenant=other host_name=web kind=host resource_id=host-1 tenant=acme";
        assert_eq!(prepared(&attributes, None), expected);
        assert!(prepared(&[("le", "x")], Some("le")).contains("exported_le=x host_name=web"));
    }

    #[test]
    fn names_that_become_the_same_are_joined_in_order_of_the_originals() {
        assert!(prepared(&[("a_b", "3"), ("a.b", "2"), ("a-b", "1"), ("z", "0")], None).starts_with("a_b=1;2;3 "));
    }

    #[test]
    fn values_have_no_nul_and_stay_apart_where_they_are_long() {
        assert!(prepared(&[("k", "a\0b")], None).contains("k=a\u{fffd}b"));
        let (one, other) = ("x".repeat(5_000), "x".repeat(5_001));
        assert_ne!(prepared(&[("k", &one)], None), prepared(&[("k", &other)], None));
    }

    #[test]
    fn what_has_too_many_labels_is_skipped_and_an_info_series_cut() {
        let names: Vec<String> = (0..40).map(|n| format!("a{n:02}")).collect();
        let attributes: Vec<_> = names.iter().map(|name| (name.as_str(), Cow::Borrowed("x"))).collect();
        let base = base();
        let room = MAX_LABELS - 1 - 4;
        assert!(labels(&base, None, &attributes[..room], None).is_ok());
        assert_eq!(labels(&base, None, &attributes[..room], Some("le")), Err(Skip::TooManyLabels));
        assert_eq!(labels(&base, None, &attributes, None), Err(Skip::TooManyLabels));
        let (info, cut) = target_info(&base, &attributes);
        assert_eq!((info.len(), cut), (MAX_LABELS - 1, 16));
        assert!(info.iter().any(|(name, value)| name == "tenant" && value == "acme"));
        let long = "x".repeat(4_000);
        let attributes: Vec<_> = names.iter().take(20).map(|name| (name.as_str(), Cow::Borrowed(&*long))).collect();
        assert_eq!(labels(&base, None, &attributes, None), Err(Skip::TooLarge));
    }
}
