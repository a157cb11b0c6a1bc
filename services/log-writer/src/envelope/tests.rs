use std::time::Duration;

use bus::Encoding;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord as OtlpRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::*;

const RECEIVED: u64 = 1_700_000_000_000_000_000;
const TIMES: Times = Times { ahead: Duration::from_secs(600), age: Duration::from_secs(30 * 86_400) };

fn value(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn attribute(key: &str, any: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value(any)), ..KeyValue::default() }
}

fn text(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

fn line(time: u64, body: Any) -> OtlpRecord {
    OtlpRecord {
        time_unix_nano: time,
        severity_text: "WARNING".to_owned(),
        body: Some(value(body)),
        ..OtlpRecord::default()
    }
}

fn envelope(schema: Schema, body: Vec<u8>) -> Envelope {
    Envelope {
        schema,
        tenant: "default".to_owned(),
        items: 1,
        received_unix_nano: RECEIVED,
        encoding: Encoding::Identity,
        body: body.into(),
    }
}

fn request(records: Vec<OtlpRecord>) -> Envelope {
    let attributes = vec![
        attribute("host.name", text("web-1")),
        attribute("env", text("a\0b")),
        attribute("env", text("prod")),
        attribute("replicas", Any::IntValue(3)),
        attribute("sightline.batch.id", text(&("00".repeat(15) + "07"))),
        attribute("sightline.batch.part", Any::IntValue(3)),
        attribute("sightline.resource.id", text("host-abc")),
        attribute("sightline.resource.kind", text("host")),
    ];
    let logs = ResourceLogs {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_logs: vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    };
    envelope(Schema::OtlpLogs, ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec())
}

fn read(records: Vec<OtlpRecord>) -> (LogResource, Vec<LogRecord>, Corrections) {
    let (mut parts, corrections) = parts(&request(records), TIMES).unwrap();
    let part = parts.remove(0);
    assert_eq!((part.batch[15], part.part), (7, 3));
    match part.content {
        Content::Logs { resource, records } => (resource, records, corrections),
        Content::Processes(_) => unreachable!(),
    }
}

#[test]
fn a_part_keeps_its_identity_and_its_records_their_order() {
    let (_, records, corrections) = read(vec![line(RECEIVED, text("a")), line(RECEIVED - 5, text("b"))]);
    assert_eq!(records.iter().map(|r| (r.index, r.body.as_str())).collect::<Vec<_>>(), [(0, "a"), (1, "b")]);
    assert_eq!(corrections, Corrections::default());
}

#[test]
fn what_names_the_batch_does_not_describe_the_resource_and_the_last_word_counts() {
    let (resource, ..) = read(vec![line(RECEIVED, text("a"))]);
    assert_eq!((resource.id.as_str(), resource.host_name.as_str()), ("host-abc", "web-1"));
    assert!(!resource.attributes.contains("batch") && resource.attributes.contains(r#""replicas":3"#));
    let labels = r#"{"env":"prod","host_name":"web-1","kind":"host","replicas":"3","resource_id":"host-abc"}"#;
    assert_eq!(resource.labels, labels);
}

#[test]
fn a_level_is_kept_as_it_was_written_beside_its_number() {
    let levelled = |number, word: &str| OtlpRecord {
        severity_number: number,
        severity_text: word.to_owned(),
        ..line(RECEIVED, text("a"))
    };
    let (_, records, _) = read(vec![
        levelled(0, "Warning"),
        levelled(0, "wrn"),
        levelled(0, "my-own-word"),
        levelled(9, "ERROR"),
        levelled(99, "E"),
    ]);
    let levels: Vec<_> = records.iter().map(|record| (record.severity, record.severity_text.as_str())).collect();
    assert_eq!(levels, [(13, "Warning"), (13, "wrn"), (0, "my-own-word"), (9, "ERROR"), (17, "E")]);
}

#[test]
fn values_read_as_everywhere_else() {
    let array = Any::ArrayValue(ArrayValue { values: vec![value(Any::DoubleValue(f64::NAN))] });
    let bodies = [
        (Any::DoubleValue(0.0), "0.0"),
        (Any::DoubleValue(f64::NAN), "NaN"),
        (Any::DoubleValue(f64::NEG_INFINITY), "-Infinity"),
        (Any::BytesValue(vec![255, 0, 1]), "/wAB"),
        (array, r#"["NaN"]"#),
    ];
    let (_, records, _) = read(bodies.iter().map(|(body, _)| line(RECEIVED, body.clone())).collect());
    for (record, (_, text)) in records.iter().zip(bodies) {
        assert_eq!(record.body, text);
    }
}

#[test]
fn nul_bytes_are_replaced_wherever_text_can_be() {
    let array = Any::ArrayValue(ArrayValue { values: vec![value(text("c\0"))] });
    let record = OtlpRecord {
        severity_text: "w\0".to_owned(),
        attributes: vec![attribute("k\0", text("v\0")), attribute("list", array), attribute("u", text("\\u0000"))],
        ..line(RECEIVED, text("a\0b"))
    };
    let (_, records, corrections) = read(vec![record]);
    assert_eq!((records[0].body.as_str(), records[0].severity_text.as_str()), ("a\u{fffd}b", "w\u{fffd}"));
    let attributes: Value = serde_json::from_str(&records[0].attributes).unwrap();
    assert_eq!(attributes, serde_json::json!({"k\u{fffd}": "v\u{fffd}", "list": ["c\u{fffd}"], "u": "\\u0000"}));
    assert_eq!(corrections.nul_bytes, 3);
}

#[test]
fn times_that_cannot_be_believed_are_held_and_kept_as_an_attribute() {
    let hour = 3_600_000_000_000;
    let (_, records, corrections) = read(vec![
        line(RECEIVED + hour, text("future")),
        line(u64::MAX, text("beyond")),
        line(1, text("past")),
        line(0, text("none")),
    ]);
    let held: Vec<_> = records.iter().map(|record| record.time_ns).collect();
    let received = i64::try_from(RECEIVED).unwrap();
    assert_eq!(held, [received, received, received - 30 * 86_400 * 1_000_000_000, received]);
    assert_eq!(corrections.times, 3);
    assert!(records[0].attributes.contains(&(RECEIVED + hour).to_string()));
}

#[test]
fn a_tick_holds_nothing_and_what_cannot_be_read_is_poison() {
    assert!(parts(&Envelope::tick(RECEIVED), TIMES).unwrap().0.is_empty());
    let read = |schema, body: &[u8]| parts(&envelope(schema, body.to_vec()), TIMES).map(|_| ());
    assert!(matches!(read(Schema::OtlpMetrics, &[]), Err(Poison::Schema(_))));
    assert!(matches!(read(Schema::OtlpLogs, &[0x0a, 0xff]), Err(Poison::Otlp(_))));
    assert!(matches!(read(Schema::Processes, &[0x0a, 0xff]), Err(Poison::Protobuf(_))));
    assert!(matches!(read(Schema::OtlpLogs, &[0x0a, 0x00]), Err(Poison::Batch)));
}
