//! Log lines as an OTLP request.

use std::path::Path;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

use super::claim::{self, Claims};
use super::harvest::Found;
use super::stamp;
use crate::attributes::{attribute, text};
use crate::identity::Identity;

/// Lines keep their order: each is observed at least one nanosecond later than the one before, and neighbours share a
/// scope only if the same program wrote them.
pub fn request(identity: &Identity, lines: &[Found]) -> ExportLogsServiceRequest {
    let mut scopes: Vec<ScopeLogs> = Vec::new();
    let mut observed = 0;
    for found in lines {
        let name = scope_name(found);
        let continues = scopes.last().and_then(|scope| scope.scope.as_ref()).is_some_and(|scope| scope.name == name);
        if !continues {
            let scope = InstrumentationScope { name: name.to_owned(), ..InstrumentationScope::default() };
            scopes.push(ScopeLogs { scope: Some(scope), ..ScopeLogs::default() });
        }
        observed = found.read_at.max(observed + 1);
        if let Some(scope) = scopes.last_mut() {
            scope.log_records.push(record(found, observed));
        }
    }
    let resource_logs =
        vec![ResourceLogs { resource: Some(identity.resource()), scope_logs: scopes, schema_url: String::new() }];
    ExportLogsServiceRequest { resource_logs }
}

fn scope_name(found: &Found) -> &str {
    let stem = || Path::new(&*found.path).file_stem().and_then(|stem| stem.to_str());
    claim::program(&found.line.text).or_else(stem).unwrap_or_default()
}

/// The time of a line that does not say it is unknown, which is 0; when it was read is another matter.
fn record(found: &Found, observed: u64) -> LogRecord {
    let line = &found.line.text;
    let Claims { level, time } = claim::claims(line);
    let file_name = Path::new(&*found.path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    LogRecord {
        time_unix_nano: stamp::written_at(line, time.as_deref()).unwrap_or_default(),
        observed_time_unix_nano: observed,
        severity_number: level.as_ref().map_or(0, |level| level.number.into()),
        severity_text: level.map(|level| level.text).unwrap_or_default(),
        body: Some(text(line)),
        attributes: vec![attribute("log.file.path", &found.path), attribute("log.file.name", file_name)],
        ..LogRecord::default()
    }
}
