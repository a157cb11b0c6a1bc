//! Log lines as an OTLP request.

use std::path::Path;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

use super::harvest::Found;
use super::severity::{program, severity};
use crate::collect::sheet::attribute;
use crate::identity::Identity;

/// Lines keep their order: each is one nanosecond later than the one before, and neighbours share a scope only if the
/// same program wrote them.
pub fn request(identity: &Identity, lines: &[Found], now: u64) -> ExportLogsServiceRequest {
    let mut scopes: Vec<ScopeLogs> = Vec::new();
    for (found, index) in lines.iter().zip(0..) {
        let name = scope_name(found);
        let continues = scopes.last().and_then(|scope| scope.scope.as_ref()).is_some_and(|scope| scope.name == name);
        if !continues {
            let scope = InstrumentationScope { name: name.to_owned(), ..InstrumentationScope::default() };
            scopes.push(ScopeLogs { scope: Some(scope), ..ScopeLogs::default() });
        }
        if let Some(scope) = scopes.last_mut() {
            scope.log_records.push(record(found, now + index));
        }
    }
    let resource_logs =
        vec![ResourceLogs { resource: Some(identity.resource()), scope_logs: scopes, schema_url: String::new() }];
    ExportLogsServiceRequest { resource_logs }
}

fn scope_name(found: &Found) -> &str {
    let stem = || Path::new(&found.path).file_stem().and_then(|stem| stem.to_str());
    program(&found.line.text).or_else(stem).unwrap_or_default()
}

fn record(found: &Found, time: u64) -> LogRecord {
    let severity = severity(&found.line.text);
    let file_name = Path::new(&found.path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity.map_or(0, |(number, _)| number.into()),
        severity_text: severity.map(|(_, text)| text.to_owned()).unwrap_or_default(),
        body: Some(AnyValue { value: Some(Value::StringValue(found.line.text.clone())) }),
        attributes: vec![attribute("log.file.path", &found.path), attribute("log.file.name", file_name)],
        ..LogRecord::default()
    }
}
