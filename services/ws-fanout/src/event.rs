//! From messages of the broker to events: labels to choose by, and a frame that is serialized once, when first wanted.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use bus::{Delivery, Envelope, InvalidEnvelope};
use model::RecentBatches;
use prost::Message as _;
use proto::alerts::Transition;
use serde::Serialize;
use serde_json::{Map, Value};
use series::{Reader, Series};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why a message shows nothing. Those who store it say so loudly; here it is counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Envelope(#[from] InvalidEnvelope),
    #[error(transparent)]
    Otlp(#[from] otlp::Invalid),
    #[error(transparent)]
    Protobuf(#[from] prost::DecodeError),
}

/// One sample, line or transition.
pub(crate) struct Event {
    tenant: Arc<str>,
    labels: Labels,
    content: Content,
    frame: OnceCell<Utf8Bytes>,
}

enum Labels {
    Series(Arc<Series>),
    Named(Arc<BTreeMap<String, String>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content {
    Metric {
        name: String,
        labels: BTreeMap<String, String>,
        time: String,
        /// Null where the value is not a number or infinite.
        value: Option<f64>,
    },
    Log {
        id: String,
        time: String,
        level: &'static str,
        body: String,
        resource_id: String,
        host_name: String,
        service_name: String,
        source: String,
        attributes: Map<String, Value>,
    },
    Alert {
        id: String,
        state: String,
        rule_id: String,
        rule_name: String,
        level: String,
        condition: String,
        value: Option<f64>,
        line: String,
        time: String,
        resource_id: String,
        labels: BTreeMap<String, String>,
    },
}

impl Event {
    fn new(tenant: Arc<str>, labels: Labels, content: Content) -> Self {
        Self { tenant, labels, content, frame: OnceCell::new() }
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        match &self.labels {
            Labels::Series(series) => Some(series.label(name)).filter(|value| !value.is_empty()),
            Labels::Named(labels) => labels.get(name).map(String::as_str),
        }
    }

    /// The frame that clients get.
    pub(crate) fn frame(&self) -> Utf8Bytes {
        // Serializing these types cannot fail: they have string keys and finite numbers.
        self.frame.get_or_init(|| serde_json::to_string(&self.content).unwrap_or_default().into()).clone()
    }
}

/// Samples of a metrics envelope.
pub(crate) fn metrics(reader: &mut Reader, delivery: &Delivery, mut each: impl FnMut(Event)) -> Result<(), Unreadable> {
    let envelope = Envelope::decode(delivery)?;
    let tenant: Arc<str> = envelope.tenant.as_str().into();
    reader.read(&envelope.tenant, &envelope.body, envelope.received_unix_nano, |sample| {
        let series = sample.series;
        let labels = series.labels().filter(|(name, _)| !["__name__", "tenant"].contains(name));
        let content = Content::Metric {
            name: series.name().to_owned(),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            time: rfc3339(u64::try_from(sample.time_ms).unwrap_or_default().saturating_mul(1_000_000)),
            value: sample.value.is_finite().then_some(sample.value),
        };
        each(Event::new(Arc::clone(&tenant), Labels::Series(Arc::clone(series)), content));
    })?;
    Ok(())
}

/// Lines of a logs envelope, but for batches that a client sent again.
pub(crate) fn logs(
    recent: &mut RecentBatches,
    delivery: &Delivery,
    mut each: impl FnMut(Event),
) -> Result<(), Unreadable> {
    let envelope = Envelope::decode(delivery)?;
    let tenant: Arc<str> = envelope.tenant.as_str().into();
    for resource in otlp::Logs::parse(&envelope.body)?.resources() {
        let (batch, part) = resource.batch().unwrap_or_default();
        if !batch.is_empty() && !recent.is_new(&tenant, batch, part) {
            continue;
        }
        let mut labels = BTreeMap::new();
        for attribute in resource.attributes() {
            labels.insert(underscored(attribute.key), attribute.value.text().into_owned());
        }
        let mut take = |name: &str| labels.remove(name).unwrap_or_default();
        take("sightline_batch_id");
        take("sightline_batch_part");
        let (id, kind) = (take("sightline_resource_id"), take("sightline_resource_kind"));
        labels.insert("resource_id".to_owned(), id);
        labels.insert("kind".to_owned(), kind);
        let labels = Arc::new(labels);
        let labelled = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let records = resource.scopes().flat_map(|scope| scope.records().map(move |record| (scope.name(), record)));
        for (index, (source, record)) in records.enumerate() {
            let time = match record.time_or_observed() {
                0 => envelope.received_unix_nano,
                time => time,
            };
            let content = Content::Log {
                id: format!("{batch}-{part}-{index}"),
                time: rfc3339(time),
                level: level(record.severity_number),
                body: record.body.text().into_owned(),
                resource_id: labelled("resource_id"),
                host_name: labelled("host_name"),
                service_name: labelled("service_name"),
                source: source.to_owned(),
                attributes: record.attributes.json(),
            };
            each(Event::new(Arc::clone(&tenant), Labels::Named(Arc::clone(&labels)), content));
        }
    }
    Ok(())
}

/// A rule's transition.
pub(crate) fn alert(delivery: &Delivery, each: impl FnOnce(Event)) -> Result<(), Unreadable> {
    let transition = Transition::decode(delivery.payload().clone())?;
    let mut labels: BTreeMap<String, String> = transition.series_labels.into_iter().collect();
    labels.extend(transition.rule_labels);
    labels.insert("alertname".to_owned(), transition.rule_name.clone());
    labels.insert("resource_id".to_owned(), transition.resource_id.clone());
    labels.insert("level".to_owned(), transition.level.clone());
    let content = Content::Alert {
        id: transition.id,
        state: transition.state,
        rule_id: transition.rule_id,
        rule_name: transition.rule_name,
        level: transition.level,
        condition: transition.condition,
        value: transition.value.is_finite().then_some(transition.value),
        line: transition.line,
        time: rfc3339(transition.sample_unix_nano),
        resource_id: transition.resource_id,
        labels: labels.clone(),
    };
    each(Event::new(transition.tenant.into(), Labels::Named(Arc::new(labels)), content));
    Ok(())
}

fn underscored(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn rfc3339(unix_nano: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(unix_nano.into()).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// OpenTelemetry logs data model, "Severity Fields".
fn level(severity_number: i32) -> &'static str {
    match severity_number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => "",
    }
}
