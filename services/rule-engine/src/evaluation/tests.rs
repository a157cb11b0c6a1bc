//! What is decided about streams of telemetry, and that a replay decides the same.

mod capacity;
mod carried;
mod edits;
mod levels;
mod lines;
mod replay;
mod samples;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use proto::rules::rule_document::Subject;
use proto::rules::{LogCondition, RuleDocument};
use uuid::Uuid;

use super::*;
use crate::rule::Rule;
use crate::saved::{Saved, Written};

const SECOND: u64 = 1_000_000_000;
/// Some day in 2026.
const START: u64 = 1_795_000_000 * SECOND;

fn limits() -> Limits {
    Limits {
        times: Times { ahead: Duration::from_secs(600), age: Duration::from_secs(30 * 86_400) },
        lateness: Duration::from_secs(900),
        idle: Duration::from_secs(3_600),
        state_bytes: 1 << 30,
        tenant_state_bytes: 1 << 30,
        tenant_work: u64::MAX,
        tenant_decisions: u64::MAX,
        series_cache_bytes: 20 << 20,
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn resource(host: &str) -> Option<Resource> {
    let attributes = vec![attribute("sightline.resource.id", host), attribute("host.name", host)];
    Some(Resource { attributes, ..Resource::default() })
}

/// One gauge `load` of a resource at `nanos`; `None` is the staleness marker.
fn load_of(resource: Option<Resource>, nanos: u64, value: Option<f64>) -> Vec<u8> {
    let point = NumberDataPoint {
        time_unix_nano: nanos,
        flags: u32::from(value.is_none()),
        value: value.map(number_data_point::Value::AsDouble),
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: "load".to_owned(),
        data: Some(metric::Data::Gauge(Gauge { data_points: vec![point] })),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource_metrics = ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }.encode_to_vec()
}

fn load(host: &str, second: u64, value: Option<f64>) -> Vec<u8> {
    load_of(resource(host), START + second * SECOND, value)
}

fn line_of(resource: Option<Resource>, nanos: u64, text: &str) -> Vec<u8> {
    let body = Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let record = LogRecord { time_unix_nano: nanos, body, ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
    let resource_logs = ResourceLogs { resource, scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }.encode_to_vec()
}

fn line(host: &str, second: u64, text: &str) -> Vec<u8> {
    line_of(resource(host), START + second * SECOND, text)
}

fn metric_document(number: u128, condition: &str, for_seconds: u64) -> RuleDocument {
    RuleDocument {
        name: format!("rule {number}"),
        level: "warning".to_owned(),
        subject: Some(Subject::Metric("load".to_owned())),
        condition: condition.to_owned(),
        for_millis: for_seconds * 1_000,
        ..RuleDocument::default()
    }
}

fn metric_rule(number: u128, version: u64, condition: &str, for_seconds: u64) -> Arc<Rule> {
    rule(number, version, version, metric_document(number, condition, for_seconds))
}

fn log_rule(number: u128, literal: &str, selector: &str, hold_seconds: u64) -> Arc<Rule> {
    let document = RuleDocument {
        name: format!("rule {number}"),
        level: "error".to_owned(),
        r#match: selector.to_owned(),
        subject: Some(Subject::Log(LogCondition { contains: literal.to_owned() })),
        hold_millis: hold_seconds * 1_000,
        ..RuleDocument::default()
    };
    rule(number, 1, 1, document)
}

fn rule(number: u128, version: u64, evaluated: u64, document: RuleDocument) -> Arc<Rule> {
    let kind = crate::kinds::name_of(&document).unwrap_or("tomorrow").to_owned();
    Arc::new(Rule::new(Uuid::from_u128(number), version, evaluated, "acme".to_owned(), kind, document))
}

fn set(revision: i64, rules: &[Arc<Rule>]) -> Arc<RuleSet> {
    Arc::new(RuleSet::new(revision, rules.to_vec(), &RuleSet::default()))
}

/// What happens to a shard; seconds are those at which the gateway took it in.
#[derive(Clone, Debug)]
enum Event {
    Metrics(u64, Vec<u8>),
    Logs(u64, Vec<u8>),
    Tick(u64),
    Rules(Arc<RuleSet>),
}

/// Both lanes of a shard, and what they said.
struct Shard {
    metrics: Evaluation,
    logs: Evaluation,
    said: Vec<Decision>,
    tally: Tally,
}

impl Shard {
    fn new(rules: &Arc<RuleSet>) -> Self {
        Self::with(rules, limits())
    }

    fn with(rules: &Arc<RuleSet>, limits: Limits) -> Self {
        Self {
            metrics: Evaluation::new(Signal::Metrics, Arc::clone(rules), limits, 0),
            logs: Evaluation::new(Signal::Logs, Arc::clone(rules), limits, 0),
            said: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn apply(&mut self, event: &Event) {
        self.apply_as("acme", event);
    }

    fn apply_as(&mut self, tenant: &str, event: &Event) {
        let said = &mut self.said;
        match event {
            Event::Metrics(second, body) => {
                self.tally = self.metrics.message(tenant, body, 1, START + second * SECOND, said).unwrap();
            }
            Event::Logs(second, body) => {
                self.tally = self.logs.message(tenant, body, 1, START + second * SECOND, said).unwrap();
            }
            Event::Tick(second) => {
                self.metrics.pass_time(START + second * SECOND, said);
                self.logs.pass_time(START + second * SECOND, said);
            }
            Event::Rules(set) => {
                for evaluation in [&mut self.metrics, &mut self.logs] {
                    for rule in evaluation.switch(Arc::clone(set), said) {
                        said.extend(evaluation.some_again(rule, 0, usize::MAX).0);
                    }
                }
            }
        }
    }

    fn told(&self) -> Vec<String> {
        told(&self.said)
    }
}

/// A snapshot as it lies in the store: parts that did not change are those of before.
#[derive(Default)]
struct Kept {
    parts: BTreeMap<usize, Vec<u8>>,
    batches: Vec<u8>,
    stream_time: u64,
    order: u64,
    written: usize,
}

impl Kept {
    fn keep(&mut self, evaluation: &mut Evaluation) {
        let snapshot = evaluation.snapshot();
        self.written = 0;
        for Written { part, bytes } in snapshot.write().unwrap() {
            self.written += 1;
            self.parts.insert(part, bytes);
        }
        if let Some(batches) = snapshot.write_batches().unwrap() {
            self.batches = batches;
        }
        (self.stream_time, self.order) = (snapshot.stream_time, snapshot.order);
    }

    fn restore(&self, signal: Signal, rules: &Arc<RuleSet>) -> Restored {
        self.restore_with(signal, rules, limits())
    }

    fn restore_with(&self, signal: Signal, rules: &Arc<RuleSet>, limits: Limits) -> Restored {
        let mut saved = Saved { stream_time: self.stream_time, order: self.order, ..Saved::default() };
        for bytes in self.parts.values().filter(|bytes| !bytes.is_empty()) {
            saved.add_part(bytes).unwrap();
        }
        if !self.batches.is_empty() {
            saved.add_batches(&self.batches).unwrap();
        }
        Evaluation::restore(signal, Arc::clone(rules), limits, saved)
    }
}

/// `firing 3 since 1` and so on, in seconds after the start; `late` behind what is told to nobody.
fn told(said: &[Decision]) -> Vec<String> {
    let second = |nanos: u64| nanos.saturating_sub(START) / SECOND;
    let tell = |d: &Decision| {
        let (at, since) = (second(d.facts.sample), second(d.facts.since));
        format!("{} {at} since {since}{}", d.state.as_str(), if d.facts.late { " late" } else { "" })
    };
    said.iter().map(tell).collect()
}

#[track_caller]
fn check(rules: &Arc<RuleSet>, events: &[Event], expected: &[&str]) -> Vec<Decision> {
    let mut shard = Shard::new(rules);
    events.iter().for_each(|event| shard.apply(event));
    assert_eq!(shard.told(), expected);
    shard.said
}

fn loads(values: &[(u64, f64)]) -> Vec<Event> {
    values.iter().map(|(second, value)| Event::Metrics(*second, load("web", *second, Some(*value)))).collect()
}
