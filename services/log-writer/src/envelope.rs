//! From envelopes to parts. Pure: whatever an envelope says, the same envelope gives the same rows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bus::{Envelope, Schema};
use model::{Times, Window, label_name, label_value, shortened};
use otlp::{Logs, ResourceLogs};
use prost::Message as _;
use proto::telemetry::{ProcessBatch, ProcessSnapshot};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use crate::record::{Content, LogRecord, LogResource, Part, Snapshot};

/// Attributes that say which part of which batch this is; they differ each time and describe nothing.
const BATCH: [&str; 2] = ["sightline.batch.id", "sightline.batch.part"];
const RESOURCE_ID: &str = "sightline.resource.id";
const RESOURCE_KIND: &str = "sightline.resource.kind";

const EACH_ROW_BYTES: usize = 256;

/// Why an envelope can never be stored. The text goes into the dead letter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Poison {
    #[error("the schema `{}` is not for this service", .0.as_str())]
    Schema(Schema),
    #[error("the body is not OTLP logs: {0}")]
    Otlp(#[from] otlp::Invalid),
    #[error("the body is not valid protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("a part has no valid batch id")]
    Batch,
}

/// What was put right on the way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Corrections {
    pub(crate) nul_bytes: u64,
    pub(crate) times: u64,
}

/// Takes an envelope apart.
pub(crate) fn parts(envelope: &Envelope, times: Times) -> Result<(Vec<Part>, Corrections), Poison> {
    let tenant = envelope.tenant.as_str().into();
    let mut reading =
        Reading { tenant, window: times.window(envelope.received_unix_nano), corrections: Corrections::default() };
    let parts = match envelope.schema {
        Schema::OtlpLogs => {
            let logs = Logs::parse(&envelope.body)?;
            logs.resources().map(|logs| reading.logs(&logs)).collect::<Result<_, _>>()?
        }
        Schema::Processes => {
            let batch = ProcessBatch::decode(envelope.body.clone())?;
            batch.snapshots.into_iter().map(|snapshot| reading.processes(snapshot)).collect::<Result<_, _>>()?
        }
        Schema::Tick => Vec::new(),
        Schema::OtlpMetrics => return Err(Poison::Schema(envelope.schema)),
    };
    Ok((parts, reading.corrections))
}

struct Reading {
    tenant: Arc<str>,
    window: Window,
    corrections: Corrections,
}

impl Reading {
    fn logs(&mut self, logs: &ResourceLogs<'_>) -> Result<Part, Poison> {
        let (batch, part) = logs.batch().ok_or(Poison::Batch)?;
        let batch = hex::decode(batch).ok().and_then(|id| id.try_into().ok()).ok_or(Poison::Batch)?;
        let part = i32::try_from(part).map_err(|_| Poison::Batch)?;
        let resource = self.resource(logs);
        let mut records = Vec::new();
        for scope in logs.scopes() {
            let source: Arc<str> = short(self.text(scope.name())).into();
            for record in scope.records() {
                let index = i32::try_from(records.len()).unwrap_or(i32::MAX);
                records.push(self.record(index, &source, &record));
            }
        }
        Ok(Part { tenant: Arc::clone(&self.tenant), batch, part, content: Content::Logs { resource, records } })
    }

    fn record(&mut self, index: i32, source: &Arc<str>, record: &otlp::LogRecord<'_>) -> LogRecord {
        let time = self.window.log(record.time_unix_nano, record.observed_unix_nano);
        let mut attributes = record.attributes.json();
        if time.wrong.is_some() {
            self.corrections.times += 1;
            attributes.insert("sightline.time.original".to_owned(), record.time_or_observed().to_string().into());
        }
        let number = u8::try_from(record.severity_number).ok().filter(|number| (1..=24).contains(number));
        LogRecord {
            index,
            time_ns: time.unix_nano,
            observed_ns: self.window.log(record.observed_unix_nano, 0).unix_nano,
            source: Arc::clone(source),
            severity: number.or_else(|| model::severity_number(record.severity_text)).unwrap_or(0).into(),
            severity_text: self.text(record.severity_text),
            body: self.text(&record.body.text()),
            attributes: self.json(attributes),
            trace_id: record.trace_id.to_vec(),
            span_id: record.span_id.to_vec(),
        }
    }

    /// Stamped attributes come last, and of a key that repeats the last counts.
    fn resource(&mut self, logs: &ResourceLogs<'_>) -> LogResource {
        let (mut attributes, mut labels) = (BTreeMap::new(), BTreeMap::new());
        for attribute in logs.attributes().filter(|attribute| !BATCH.contains(&attribute.key)) {
            attributes.insert(attribute.key.to_owned(), attribute.value.json());
            let label = match attribute.key {
                RESOURCE_ID => "resource_id".to_owned(),
                RESOURCE_KIND => "kind".to_owned(),
                other => label_name(other),
            };
            labels.insert(label, label_value(&attribute.value.text()).into_owned());
        }
        let named = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let (id, host_name) = (short(named("resource_id")), short(named("host_name")));
        let service_name = short(named("service_name"));
        let attributes = self.json(attributes.into_iter().collect());
        LogResource {
            reference: i64::from_ne_bytes(xxh3_64(attributes.as_bytes()).to_ne_bytes()),
            id,
            host_name,
            service_name,
            attributes,
            labels: serde_json::to_string(&labels).unwrap_or_default(),
        }
    }

    fn processes(&mut self, snapshot: ProcessSnapshot) -> Result<Part, Poison> {
        let batch = <[u8; 16]>::try_from(snapshot.batch_id.as_slice()).map_err(|_| Poison::Batch)?;
        let part = i32::try_from(snapshot.part).map_err(|_| Poison::Batch)?;
        let time = self.window.log(snapshot.time_unix_nano, 0);
        self.corrections.times += u64::from(time.wrong.is_some());
        let mut processes = snapshot.processes;
        for process in &mut processes {
            for text in [&mut process.user, &mut process.executable, &mut process.command_line] {
                *text = self.text(text);
            }
            let labels = std::mem::take(&mut process.labels).into_iter();
            process.labels = labels.map(|(name, value)| (self.text(&name), self.text(&value))).collect();
        }
        let snapshot = Snapshot {
            resource_id: short(self.text(&snapshot.resource_id)),
            agent_id: self.text(&snapshot.agent_id),
            host_name: self.text(&snapshot.host_name),
            time_ns: time.unix_nano,
            processes,
        };
        Ok(Part { tenant: Arc::clone(&self.tenant), batch, part, content: Content::Processes(snapshot) })
    }

    /// Postgres stores no NUL in text: each becomes U+FFFD, and one such line does not cost its neighbours their place.
    fn text(&mut self, text: &str) -> String {
        let clean = without_nul(text);
        self.corrections.nul_bytes += u64::from(matches!(clean, Cow::Owned(_)));
        clean.into_owned()
    }

    fn json(&mut self, object: Map<String, Value>) -> String {
        let mut object = Value::Object(object);
        let text = object.to_string();
        // How JSON writes a NUL; a backslash of the text's own in front of `u0000` only costs a look.
        if !text.contains("\\u0000") || !clean(&mut object) {
            return text;
        }
        self.corrections.nul_bytes += 1;
        object.to_string()
    }
}

/// What stands in every row of a resource or scope may have so many bytes, of which the last tell longer ones apart.
fn short(text: String) -> String {
    if text.len() > EACH_ROW_BYTES { shortened(&text, EACH_ROW_BYTES, '~') } else { text }
}

fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Replaces every NUL in a value; says whether there was any.
fn clean(value: &mut Value) -> bool {
    match value {
        Value::String(text) => match without_nul(text) {
            Cow::Owned(clean) => {
                *text = clean;
                true
            }
            Cow::Borrowed(_) => false,
        },
        Value::Array(items) => items.iter_mut().fold(false, |any, item| clean(item) | any),
        Value::Object(fields) => {
            let mut any = false;
            let cleaned = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                any |= clean(&mut value) | name.contains('\0');
                (without_nul(&name).into_owned(), value)
            });
            *fields = cleaned.collect();
            any
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
