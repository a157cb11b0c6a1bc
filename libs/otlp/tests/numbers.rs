//! A part of a batch has the same number whatever a gateway refuses of the request.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp::{Limits, Most, Rules, Signal, check};
use prost::Message as _;

const NOW: u64 = 1_790_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const MOST: Most = Most { bytes: 2_000, items: 10 };

fn text(text: String) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(text)) })
}

fn scope(resource: usize, name: usize, records: usize, time_unix_nano: u64) -> ScopeLogs {
    let record = |n: usize| LogRecord {
        time_unix_nano: time_unix_nano + (n as u64 % 3) * SECOND,
        body: text(format!("{resource}/{name}/{n}/{}", "x".repeat(n * 37 % 500))),
        ..LogRecord::default()
    };
    let scope = Some(InstrumentationScope { name: "s".repeat(name), ..InstrumentationScope::default() });
    ScopeLogs { scope, log_records: (0..records).map(record).collect(), ..ScopeLogs::default() }
}

fn resource(number: usize, records: usize, time: u64) -> ResourceLogs {
    let key = if number.is_multiple_of(2) { "sightline.x" } else { "x" };
    let attributes = vec![KeyValue { key: key.to_owned(), value: text("v".repeat(30)), ..KeyValue::default() }];
    let scope_logs =
        vec![scope(number, 40, records, time), scope(number, 90, 7, time), scope(number, 3, records, time)];
    let resource = Some(Resource { attributes, ..Resource::default() });
    ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }
}

/// The number of the part that each line has, and how many parts there are.
fn numbers(request: &[u8], age: u64, limits: Limits) -> (BTreeMap<String, usize>, usize) {
    let age = std::time::Duration::from_secs(age);
    let rules = Rules { limits, times: model::Times { ahead: age, age }.window(NOW) };
    let walk = check(request, Signal::Logs, &rules).unwrap();
    let (mut numbers, mut before, mut kept) = (BTreeMap::new(), 0, 0);
    for resource in &walk.resources {
        before += resource.pieces(&rules, MOST, |piece| {
            kept += piece.items;
            assert!(piece.content.len() <= MOST.bytes && piece.items <= MOST.items);
            for record in ResourceLogs::decode(&*piece.content).unwrap().scope_logs.iter().flat_map(|s| &s.log_records)
            {
                let Some(Value::StringValue(body)) = record.body.clone().unwrap().value else { continue };
                assert_eq!(numbers.insert(body, before + piece.number), None);
            }
        });
    }
    assert_eq!((kept, numbers.len() as u64), (walk.items, walk.items));
    (numbers, before)
}

#[test]
fn a_part_keeps_its_number_whatever_is_refused() {
    let old = NOW - 1_000 * SECOND;
    let resources = vec![
        resource(0, 40, old),
        resource(1, 1, old),
        resource(2, 0, NOW),
        resource(3, 1, NOW),
        resource(4, 40, NOW - 500 * SECOND),
        resource(5, 40, NOW),
    ];
    let request = ExportLogsServiceRequest { resource_logs: resources }.encode_to_vec();
    let usual = Limits::default();
    let (all, parts) = numbers(&request, 5_000, usual);
    assert!(all.len() > 200 && parts > 30, "{} lines in {parts} parts", all.len());
    let others = [
        (999, usual),
        (500, usual),
        (100, usual),
        (5_000, Limits { name_bytes: 50, ..usual }),
        (5_000, Limits { item_bytes: 300, ..usual }),
        (999, Limits { scopes: 2, ..usual }),
        (5_000, Limits { header_bytes: 60, ..usual }),
    ];
    for (age, limits) in others {
        let (some, same) = numbers(&request, age, limits);
        assert!(some.len() < all.len(), "nothing is refused");
        assert_eq!(same, parts);
        assert!(some.iter().all(|(line, number)| all[line] == *number), "{age} {limits:?}");
    }
}
