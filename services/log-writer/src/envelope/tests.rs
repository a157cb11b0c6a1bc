use opentelemetry_proto::tonic::logs::v1::{LogRecord as OtlpRecord, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::*;

const RECEIVED: u64 = 1_700_000_000_000_000_000;
const BELIEVED: Believed = Believed { skew: Duration::from_secs(600), retention: Duration::from_secs(30 * 86_400) };

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn line(time: u64, body: &str) -> OtlpRecord {
    OtlpRecord {
        time_unix_nano: time,
        severity_text: "WARNING".to_owned(),
        body: Some(AnyValue { value: Some(Any::StringValue(body.to_owned())) }),
        ..OtlpRecord::default()
    }
}

fn request(records: Vec<OtlpRecord>) -> Vec<u8> {
    let attributes = vec![
        attribute("host.name", Any::StringValue("web-1".to_owned())),
        attribute("sightline.batch.id", Any::StringValue("00".repeat(15) + "07")),
        attribute("sightline.batch.part", Any::IntValue(3)),
        attribute("sightline.resource.id", Any::StringValue("host-abc".to_owned())),
    ];
    let logs = ResourceLogs {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_logs: vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    };
    ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec()
}

fn read(body: &[u8]) -> (Part, Corrections) {
    let mut corrections = Corrections::default();
    let mut parts = parts(Schema::OtlpLogs, "default", RECEIVED, body, BELIEVED, &mut corrections).unwrap();
    (parts.remove(0), corrections)
}

fn records(part: &Part) -> &[LogRecord] {
    match &part.content {
        Content::Logs { records, .. } => records,
        Content::Processes(_) => unreachable!(),
    }
}

#[test]
fn a_part_keeps_its_identity_and_its_records_their_order() {
    let (part, corrections) = read(&request(vec![line(RECEIVED, "a"), line(RECEIVED - 5, "b")]));
    assert_eq!((part.batch[15], part.part), (7, 3));
    assert_eq!(records(&part).iter().map(|r| (r.index, r.body.as_str())).collect::<Vec<_>>(), [(0, "a"), (1, "b")]);
    assert_eq!(records(&part)[0].severity, 13);
    assert_eq!(corrections, Corrections::default());
}

#[test]
fn what_names_the_batch_does_not_describe_the_resource() {
    let (part, _) = read(&request(Vec::new()));
    let Content::Logs { resource, .. } = &part.content else { unreachable!() };
    assert_eq!(resource.attributes, r#"{"host.name":"web-1","sightline.resource.id":"host-abc"}"#);
    assert_eq!((resource.id.as_str(), resource.host_name.as_str()), ("host-abc", "web-1"));
}

#[test]
fn nul_bytes_are_replaced_and_counted() {
    let (part, corrections) = read(&request(vec![line(RECEIVED, "a\0b")]));
    assert_eq!(records(&part)[0].body, "a\u{fffd}b");
    assert_eq!(corrections.nul_bytes, 1);
}

#[test]
fn times_that_cannot_be_believed_are_held_and_kept_as_an_attribute() {
    let hour = 3_600_000_000_000;
    let (part, corrections) = read(&request(vec![line(RECEIVED + hour, "future"), line(1, "past"), line(0, "none")]));
    let held: Vec<_> = records(&part).iter().map(|record| record.time_ns).collect();
    let received = i64::try_from(RECEIVED).unwrap();
    assert_eq!(held, [received, received - 30 * 86_400 * 1_000_000_000, received]);
    assert_eq!(corrections.times, 2);
    assert!(records(&part)[0].attributes.contains(&(RECEIVED + hour).to_string()));
}

#[test]
fn an_unknown_schema_and_a_broken_body_are_poison() {
    let mut corrections = Corrections::default();
    let mut read = |schema, body: &[u8]| parts(schema, "default", RECEIVED, body, BELIEVED, &mut corrections);
    assert!(matches!(read(Schema::OtlpMetrics, &[]), Err(Poison::Schema(_))));
    assert!(matches!(read(Schema::OtlpLogs, &[0x0a, 0xff]), Err(Poison::Protobuf(_))));
    assert!(matches!(read(Schema::OtlpLogs, &[0x0a, 0x00]), Err(Poison::Batch)));
}
