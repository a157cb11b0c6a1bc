//! What clients are sent, as JSON.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use axum::extract::ws::Utf8Bytes;
use proto::alerts::AlertChanged;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use series::Series;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One frame, told apart by `type`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Frame<'a> {
    /// Everything published from now on will come.
    Hello,
    Ping,
    /// So many frames were dropped before the next one, since the client reads too slowly.
    Dropped {
        count: u64,
    },
    /// What was published after `from` and before `until` does not come.
    Gap {
        from: Option<String>,
        until: String,
        why: &'static str,
    },
    Metric {
        name: &'a str,
        labels: Labels<'a>,
        time: String,
        /// Null where the value is not a number or infinite.
        value: Option<f64>,
    },
    Log {
        id: String,
        time: String,
        level: &'static str,
        /// The level in the source's own words.
        severity_text: Cow<'a, str>,
        body: Cow<'a, str>,
        resource_id: &'a str,
        host_name: &'a str,
        service_name: &'a str,
        source: &'a str,
        attributes: Map<String, Value>,
    },
    Alert(Box<Alert<'a>>),
}

/// An alert as the API shows it, and what happened to it.
#[derive(Serialize)]
pub(crate) struct Alert<'a> {
    change: &'a str,
    changed_at: Option<String>,
    /// Rises by one with each change of the alert.
    revision: u64,
    id: &'a str,
    rule_id: &'a str,
    rule_name: &'a str,
    kind: &'a str,
    level: &'a str,
    state: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    descriptive_labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'a str, &'a str>,
    value: Option<f64>,
    line: Option<&'a str>,
    condition: &'a str,
    resource_id: &'a str,
    starts_at: Option<String>,
    ends_at: Option<String>,
    updated_at: Option<String>,
    ended_reason: Option<&'a str>,
    ended_by: Option<&'a str>,
    late: bool,
    receivers: &'a [String],
    occurrences: u64,
    delivery: &'a str,
}

impl Frame<'_> {
    pub(crate) fn text(&self) -> Utf8Bytes {
        // Serializing these types cannot fail: they have string keys and finite numbers.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

impl<'a> Frame<'a> {
    /// Nothing where the message has no alert.
    pub(crate) fn alert(changed: &'a AlertChanged) -> Option<Self> {
        let alert = changed.alert.as_ref()?;
        Some(Self::Alert(Box::new(Alert {
            change: &changed.change,
            changed_at: rfc3339(changed.changed_unix_nano),
            revision: changed.revision,
            id: &alert.id,
            rule_id: &alert.rule_id,
            rule_name: &alert.rule_name,
            kind: &alert.kind,
            level: &alert.level,
            state: &alert.state,
            labels: sorted(&alert.labels),
            descriptive_labels: sorted(&alert.descriptive_labels),
            annotations: sorted(&alert.annotations),
            value: alert.value.is_finite().then_some(alert.value),
            line: some(&alert.line),
            condition: &alert.condition,
            resource_id: &alert.resource_id,
            starts_at: rfc3339(alert.starts_unix_nano),
            ends_at: rfc3339(alert.ends_unix_nano),
            updated_at: rfc3339(alert.updated_unix_nano),
            ended_reason: some(&alert.ended_reason),
            ended_by: some(&alert.ended_by),
            late: alert.late,
            receivers: &alert.receivers,
            occurrences: alert.occurrences,
            delivery: &alert.delivery,
        })))
    }
}

/// A series' labels but for its name and its tenant.
pub(crate) struct Labels<'a>(pub(crate) &'a Series);

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.labels().filter(|(name, _)| !["__name__", "tenant"].contains(name)))
    }
}

fn sorted(pairs: &HashMap<String, String>) -> BTreeMap<&str, &str> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A time in UTC; 0 is none.
pub(crate) fn rfc3339(unix_nano: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(unix_nano.into()).ok().filter(|_| unix_nano != 0);
    time.and_then(|time| time.format(&Rfc3339).ok())
}
