//! For each door: the worst that it accepts, and how many bytes that becomes.

use std::io::Write as _;

use bus::Stream;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use tonic::Code;

use crate::support::{Gateway, Tap, logs_in};

/// A stamp has some 250 bytes.
const STAMP: usize = 300;

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One scope with a name of so many bytes, and so many records of two bytes.
fn long_scope(name: usize, records: usize) -> Vec<u8> {
    let scope = field(1, &field(1, &vec![b'a'; name]));
    field(1, &field(2, &[scope, field(2, &[]).repeat(records)].concat()))
}

/// So many resources of six bytes.
fn tiny_resources(count: usize) -> Vec<u8> {
    [0x0a, 4, 0x12, 2, 0x12, 0].repeat(count)
}

fn decoded(request: &[u8]) -> ExportLogsServiceRequest {
    prost::Message::decode(request).unwrap()
}

async fn post(gateway: &Gateway, kind: &str, packing: &str, body: Vec<u8>) -> reqwest::Response {
    let request = reqwest::Client::new().post(gateway.url("/v1/logs")).header("content-type", kind);
    request.header("content-encoding", packing).body(body).send().await.unwrap()
}

/// What each line of an envelope repeats when it is a row: the longest name of a scope.
fn longest_scope(envelope: &bus::Envelope) -> usize {
    let resources = logs_in(envelope).into_iter();
    let scopes = resources.flat_map(|resource| resource.scope_logs).filter_map(|scope| scope.scope);
    scopes.map(|scope| scope.name.len()).max().unwrap_or_default()
}

/// Bytes of all envelopes until so many items have come; none is above its limits.
async fn bytes_of(tap: &mut Tap, items: u64) -> usize {
    let (mut seen, mut bytes) = (0, 0);
    while seen < items {
        let envelope = tap.next().await;
        assert!(longest_scope(&envelope) <= 1 << 10, "its rows would repeat {} bytes", longest_scope(&envelope));
        assert!(envelope.body.len() <= 512 << 10 && envelope.items <= 20_000, "{} items", envelope.items);
        seen += envelope.items;
        bytes += envelope.body.len();
    }
    assert_eq!(seen, items);
    bytes
}

const PROTOBUF: &str = "application/x-protobuf";

#[tokio::test]
async fn protobuf_with_a_header_that_would_be_repeated_becomes_no_more_than_four_times_itself() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Logs).await;
    // 690 KB that were 42 GB once: nothing of that scope is taken, and the client is told.
    let answer = post(&gateway, PROTOBUF, "identity", long_scope(530_000, 80_000)).await;
    assert_eq!(answer.status(), 200);
    assert!(!answer.bytes().await.unwrap().is_empty());
    // Nor of one whose name would be in every line.
    let answer = post(&gateway, PROTOBUF, "gzip", gzip(&long_scope(65_000, 200_000))).await;
    assert!(!answer.bytes().await.unwrap().is_empty());
    let worst = long_scope(1_024, 200_000);
    let size = worst.len();
    // A few hundred bytes on the way here.
    assert_eq!(post(&gateway, PROTOBUF, "gzip", gzip(&worst)).await.bytes().await.unwrap().len(), 0);
    let bytes = bytes_of(&mut tap, 200_000).await;
    assert!(bytes <= 4 * size, "{size} bytes became {bytes}");
}

#[tokio::test]
async fn many_resources_cost_their_stamps_and_too_many_are_refused_before_they_cost_anything() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Logs).await;
    let worst = tiny_resources(10_000);
    let mut client = gateway.logs().await;
    client.export(decoded(&worst)).await.unwrap();
    let bytes = bytes_of(&mut tap, 10_000).await;
    assert!(bytes <= worst.len() + 10_000 * STAMP, "{} bytes became {bytes}", worst.len());

    let status = client.export(decoded(&tiny_resources(10_001))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("10000 resources"), "{}", status.message());
    let answer = post(&gateway, PROTOBUF, "gzip", gzip(&tiny_resources(340_000))).await;
    assert_eq!(answer.status(), 413);
}

#[tokio::test]
async fn json_of_three_bytes_a_record_becomes_less_than_it_was() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Logs).await;
    let records = 250_000;
    let worst =
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}{{}}]}}]}}]}}"#, "{},".repeat(records - 1));
    let size = worst.len();
    assert_eq!(post(&gateway, "application/json", "identity", worst.into()).await.status(), 200);
    let bytes = bytes_of(&mut tap, records as u64).await;
    assert!(bytes <= size, "{size} bytes became {bytes}");
}

#[tokio::test]
async fn more_records_than_the_limit_are_refused_however_small_they_are() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Logs).await;
    let records = |count| long_scope(1, count);
    // A few kilobytes on the way here, that were as many rows once.
    let answer = post(&gateway, PROTOBUF, "gzip", gzip(&records(1_000_000))).await;
    assert_eq!(answer.status(), 413);
    let said = answer.bytes().await.unwrap();
    assert!(String::from_utf8_lossy(&said).contains("more than 250000 log records"), "{said:?}");
    // Nothing of it was handed on.
    assert_eq!(post(&gateway, PROTOBUF, "gzip", gzip(&records(250_000))).await.status(), 200);
    bytes_of(&mut tap, 250_000).await;
}

#[tokio::test]
async fn resources_share_envelopes_only_up_to_so_many_items() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Logs).await;
    let one = |name: &str| {
        let attribute = field(1, &[field(1, b"host.id"), field(2, &field(1, name.as_bytes()))].concat());
        field(1, &[field(1, &attribute), field(2, &field(2, &[]).repeat(15_000))].concat())
    };
    // While the first is on its way the others gather.
    let request: Vec<u8> = (0..8).flat_map(|n| one(&n.to_string())).collect();
    assert_eq!(post(&gateway, PROTOBUF, "identity", request).await.status(), 200);
    bytes_of(&mut tap, 8 * 15_000).await;
}
