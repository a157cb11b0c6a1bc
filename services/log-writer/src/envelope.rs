//! From envelopes to parts. Pure: whatever an envelope says, the same envelope gives the same rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus::Schema;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use prost::Message as _;
use proto::telemetry::ProcessBatch;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use crate::record::{Content, LogRecord, LogResource, Part, Snapshot};
use crate::severity;

/// Attributes that say which part of which batch this is; they differ each time and describe nothing.
const BATCH_ID: &str = "sightline.batch.id";
const BATCH_PART: &str = "sightline.batch.part";

/// Why an envelope can never be stored. The text goes into the dead letter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Poison {
    #[error("the schema `{}` is not for this service", .0.as_str())]
    Schema(Schema),
    #[error("the body is not valid protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("a part has no valid batch id")]
    Batch,
}

/// Which times are believed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Believed {
    pub(crate) skew: Duration,
    pub(crate) retention: Duration,
}

/// What was put right on the way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Corrections {
    pub(crate) nul_bytes: u64,
    pub(crate) times: u64,
}

/// Takes an envelope apart.
pub(crate) fn parts(
    schema: Schema,
    tenant: &str,
    received_ns: u64,
    body: &[u8],
    believed: Believed,
    corrections: &mut Corrections,
) -> Result<Vec<Part>, Poison> {
    let clock = Clock::new(received_ns, believed);
    let tenant: Arc<str> = tenant.into();
    match schema {
        Schema::OtlpLogs => {
            let request = ExportLogsServiceRequest::decode(body)?;
            request.resource_logs.into_iter().map(|logs| log_part(&tenant, logs, clock, corrections)).collect()
        }
        Schema::Processes => {
            let batch = ProcessBatch::decode(body)?;
            batch.snapshots.into_iter().map(|snapshot| process_part(&tenant, snapshot, clock, corrections)).collect()
        }
        Schema::Tick => Ok(Vec::new()),
        Schema::OtlpMetrics => Err(Poison::Schema(schema)),
    }
}

/// Holds times within what is believed.
#[derive(Clone, Copy)]
struct Clock {
    received: i64,
    earliest: i64,
    latest: i64,
}

impl Clock {
    fn new(received_ns: u64, believed: Believed) -> Self {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let received = i64::try_from(received_ns).unwrap_or(i64::MAX);
        Self {
            received,
            earliest: received.saturating_sub(nanos(believed.retention)),
            latest: received.saturating_add(nanos(believed.skew)),
        }
    }

    /// The time to store, and whether it had to be changed. 0 means that the record has none.
    fn hold(self, time: u64) -> (i64, bool) {
        match i64::try_from(time) {
            Ok(0) => (self.received, false),
            Ok(time) if time < self.earliest => (self.earliest, true),
            Ok(time) if time <= self.latest => (time, false),
            _ => (self.received, true),
        }
    }
}

fn log_part(
    tenant: &Arc<str>,
    logs: ResourceLogs,
    clock: Clock,
    corrections: &mut Corrections,
) -> Result<Part, Poison> {
    let mut attributes = BTreeMap::new();
    for KeyValue { key, value, .. } in logs.resource.map(|resource| resource.attributes).unwrap_or_default() {
        // Stamped attributes come last, and the last word counts.
        attributes.insert(clean(key, corrections), json(value, corrections));
    }
    let batch = attributes.remove(BATCH_ID).and_then(|id| batch_id(id.as_str()?)).ok_or(Poison::Batch)?;
    let part = attributes.remove(BATCH_PART).and_then(|part| i32::try_from(part.as_i64()?).ok()).unwrap_or(0);
    let mut records = Vec::new();
    for scope_logs in logs.scope_logs {
        let source: Arc<str> = clean(scope_logs.scope.map(|scope| scope.name).unwrap_or_default(), corrections).into();
        for record in scope_logs.log_records {
            let index = i32::try_from(records.len()).unwrap_or(i32::MAX);
            let time = if record.time_unix_nano == 0 { record.observed_time_unix_nano } else { record.time_unix_nano };
            let (time_ns, held) = clock.hold(time);
            let mut attributes = object(record.attributes, corrections);
            if held {
                corrections.times += 1;
                attributes.insert("sightline.time.original".to_owned(), time.to_string().into());
            }
            let named = severity::number(&record.severity_text).unwrap_or(0);
            let severity = i16::try_from(record.severity_number).ok().filter(|n| (1..=24).contains(n)).unwrap_or(named);
            records.push(LogRecord {
                index,
                time_ns,
                observed_ns: clock.hold(record.observed_time_unix_nano).0,
                source: Arc::clone(&source),
                severity,
                body: text(json(record.body, corrections)),
                attributes: Value::Object(attributes).to_string(),
                trace_id: record.trace_id,
                span_id: record.span_id,
            });
        }
    }
    let resource = resource(&attributes);
    Ok(Part { tenant: Arc::clone(tenant), batch, part, content: Content::Logs { resource, records } })
}

fn resource(attributes: &BTreeMap<String, Value>) -> LogResource {
    let named = |name: &str| attributes.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let json = serde_json::to_string(attributes).unwrap_or_default();
    LogResource {
        reference: i64::from_ne_bytes(xxh3_64(json.as_bytes()).to_ne_bytes()),
        id: named("sightline.resource.id"),
        host_name: named("host.name"),
        service_name: named("service.name"),
        attributes: json,
    }
}

fn process_part(
    tenant: &Arc<str>,
    snapshot: proto::telemetry::ProcessSnapshot,
    clock: Clock,
    corrections: &mut Corrections,
) -> Result<Part, Poison> {
    let batch = <[u8; 16]>::try_from(snapshot.batch_id.as_slice()).map_err(|_| Poison::Batch)?;
    let part = i32::try_from(snapshot.part).map_err(|_| Poison::Batch)?;
    let (time_ns, held) = clock.hold(snapshot.time_unix_nano);
    corrections.times += u64::from(held);
    let mut processes = snapshot.processes;
    for process in &mut processes {
        for text in [&mut process.user, &mut process.executable, &mut process.command_line] {
            *text = clean(std::mem::take(text), corrections);
        }
        let labels = std::mem::take(&mut process.labels).into_iter();
        process.labels = labels.map(|(name, value)| (clean(name, corrections), clean(value, corrections))).collect();
    }
    let snapshot = Snapshot {
        resource_id: clean(snapshot.resource_id, corrections),
        agent_id: clean(snapshot.agent_id, corrections),
        host_name: clean(snapshot.host_name, corrections),
        time_ns,
        processes,
    };
    Ok(Part { tenant: Arc::clone(tenant), batch, part, content: Content::Processes(snapshot) })
}

fn batch_id(text: &str) -> Option<[u8; 16]> {
    hex::decode(text).ok()?.try_into().ok()
}

/// Postgres stores no NUL in text: each becomes U+FFFD, and one such line does not cost its neighbours their place.
fn clean(text: String, corrections: &mut Corrections) -> String {
    if !text.contains('\0') {
        return text;
    }
    corrections.nul_bytes += 1;
    text.replace('\0', "\u{fffd}")
}

fn object(attributes: Vec<KeyValue>, corrections: &mut Corrections) -> Map<String, Value> {
    attributes
        .into_iter()
        .map(|KeyValue { key, value, .. }| (clean(key, corrections), json(value, corrections)))
        .collect()
}

/// An OTLP value as JSON; bytes become hex.
fn json(value: Option<AnyValue>, corrections: &mut Corrections) -> Value {
    match value.and_then(|value| value.value) {
        Some(Any::StringValue(text)) => Value::String(clean(text, corrections)),
        Some(Any::BoolValue(value)) => value.into(),
        Some(Any::IntValue(value)) => value.into(),
        Some(Any::DoubleValue(value)) => value.into(),
        Some(Any::BytesValue(bytes)) => hex::encode(bytes).into(),
        Some(Any::ArrayValue(array)) => array.values.into_iter().map(|value| json(Some(value), corrections)).collect(),
        Some(Any::KvlistValue(list)) => Value::Object(object(list.values, corrections)),
        // A reference into a string table, which only profiles have.
        Some(Any::StringValueStrindex(_)) | None => Value::Null,
    }
}

/// A body: a string as it is, everything else as JSON text.
fn text(body: Value) -> String {
    match body {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
