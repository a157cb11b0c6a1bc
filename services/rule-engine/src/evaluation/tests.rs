//! What is decided about streams of telemetry, and that a replay decides the same.

use std::sync::Arc;

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

const SECOND: u64 = 1_000_000_000;
/// Some day in 2026.
const START: u64 = 1_795_000_000 * SECOND;

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn resource(host: &str) -> Option<Resource> {
    let attributes = vec![attribute("sightline.resource.id", host), attribute("host.name", host)];
    Some(Resource { attributes, ..Resource::default() })
}

/// One gauge `load` of `host` at `second` after the start; `None` is the staleness marker.
fn load(host: &str, second: u64, value: Option<f64>) -> Vec<u8> {
    let point = NumberDataPoint {
        time_unix_nano: START + second * SECOND,
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
    let resource_metrics = ResourceMetrics { resource: resource(host), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }.encode_to_vec()
}

fn line(host: &str, second: u64, text: &str) -> Vec<u8> {
    let body = Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let record = LogRecord { time_unix_nano: START + second * SECOND, body, ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
    let resource_logs = ResourceLogs { resource: resource(host), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }.encode_to_vec()
}

fn metric_rule(number: u128, version: u64, condition: &str, for_seconds: u64) -> Arc<Rule> {
    let document = RuleDocument {
        name: format!("rule {number}"),
        level: "warning".to_owned(),
        subject: Some(Subject::Metric("load".to_owned())),
        condition: condition.to_owned(),
        for_millis: for_seconds * 1_000,
        ..RuleDocument::default()
    };
    rule(number, version, document)
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
    rule(number, 1, document)
}

fn rule(number: u128, version: u64, document: RuleDocument) -> Arc<Rule> {
    Arc::new(Rule::new(Uuid::from_u128(number), version, "acme".to_owned(), document).unwrap())
}

fn book(revision: i64, rules: &[Arc<Rule>]) -> Arc<Book> {
    Arc::new(Book::new(revision, rules.to_vec(), &Book::default()))
}

/// What happens to a shard; seconds are those at which the gateway took it in.
#[derive(Clone)]
enum Event {
    Metrics(u64, Vec<u8>),
    Logs(u64, Vec<u8>),
    Rules(Arc<Book>),
}

fn apply(evaluation: &mut Evaluation, event: &Event, said: &mut Vec<Decision>) {
    let mut decide = |decision| said.push(decision);
    match event {
        Event::Metrics(second, body) => {
            let received = START + second * SECOND;
            evaluation.metrics("acme", body, received, &mut decide).unwrap();
            evaluation.pass_time(received, &mut decide);
        }
        Event::Logs(second, body) => {
            evaluation.logs("acme", body, START + second * SECOND, &mut decide).unwrap();
        }
        Event::Rules(book) => evaluation.switch(Arc::clone(book), &mut decide),
    }
}

/// `firing 3 since 1` and so on, in seconds after the start.
fn told(said: &[Decision]) -> Vec<String> {
    let second = |nanos: u64| nanos.saturating_sub(START) / SECOND;
    let tell = |d: &Decision| {
        let (at, since) = (second(d.sample_unix_nano), second(d.since_unix_nano));
        format!("{} {at} since {since}", d.state.as_str())
    };
    said.iter().map(tell).collect()
}

#[track_caller]
fn check(book: Arc<Book>, events: &[Event], expected: &[&str]) -> Vec<Decision> {
    let mut evaluation = Evaluation::new(book);
    let mut said = Vec::new();
    events.iter().for_each(|event| apply(&mut evaluation, event, &mut said));
    assert_eq!(told(&said), expected);
    said
}

fn loads(values: &[(u64, f64)]) -> Vec<Event> {
    values.iter().map(|(second, value)| Event::Metrics(*second, load("web", *second, Some(*value)))).collect()
}

#[test]
fn a_threshold_fires_when_it_has_held_for_long_enough() {
    let samples = loads(&[(0, 1.0), (10, 95.0), (20, 96.0), (40, 97.0), (50, 10.0)]);
    let said =
        check(book(1, &[metric_rule(1, 1, "> 90", 30)]), &samples, &["firing 40 since 10", "resolved 50 since 10"]);
    assert_eq!((said[0].value, said[1].value), (97.0, 10.0));
    assert_eq!(said[0].resource_id, "web");
    assert!(said[0].labels.contains(&("host_name".to_owned(), "web".to_owned())));
    assert_ne!(said[0].id(), said[1].id());
}

#[test]
fn samples_that_are_not_newer_change_nothing() {
    let mut events = loads(&[(10, 95.0), (20, 95.0)]);
    events.extend(loads(&[(10, 1.0), (20, 1.0), (15, 1.0)]));
    events.extend(loads(&[(30, 95.0), (30, 1.0)]));
    check(book(1, &[metric_rule(1, 1, "> 90", 20)]), &events, &["firing 30 since 10"]);
}

#[test]
fn a_sample_from_far_ahead_does_not_silence_its_series() {
    let events = [Event::Metrics(10, load("web", 100_000, Some(1.0))), Event::Metrics(11, load("web", 11, Some(95.0)))];
    check(book(1, &[metric_rule(1, 1, "> 90", 0)]), &events, &["firing 11 since 11"]);
}

#[test]
fn the_end_of_a_series_ends_what_was_pending_or_firing() {
    let mut events = loads(&[(10, 95.0)]);
    events.push(Event::Metrics(15, load("web", 15, None)));
    events.extend(loads(&[(20, 95.0), (30, 95.0)]));
    events.push(Event::Metrics(40, load("web", 40, None)));
    check(book(1, &[metric_rule(1, 1, "> 90", 10)]), &events, &["firing 30 since 20", "resolved 40 since 20"]);
}

#[test]
fn a_series_without_news_for_an_hour_resolves_and_is_forgotten() {
    let mut events = loads(&[(10, 95.0)]);
    events.push(Event::Metrics(3_500, load("db", 3_500, Some(1.0))));
    events.push(Event::Metrics(3_700, load("db", 3_700, Some(1.0))));
    check(book(1, &[metric_rule(1, 1, "> 90", 0)]), &events, &["firing 10 since 10", "resolved 10 since 10"]);
}

#[test]
fn a_changed_rule_starts_over_and_its_old_alert_resolves() {
    let mut events = loads(&[(10, 95.0), (20, 95.0)]);
    events.push(Event::Rules(book(2, &[metric_rule(1, 2, "> 50", 10)])));
    events.extend(loads(&[(30, 95.0), (40, 95.0)]));
    let expected = ["firing 20 since 10", "resolved 20 since 10", "firing 40 since 30"];
    let said = check(book(1, &[metric_rule(1, 1, "> 90", 10)]), &events, &expected);
    assert_eq!([&said[0], &said[1], &said[2]].map(|d| d.rule.version), [1, 1, 2]);
}

#[test]
fn other_rules_do_not_disturb_what_is_pending() {
    let mut events = loads(&[(10, 95.0)]);
    events.push(Event::Rules(book(2, &[metric_rule(1, 1, "> 90", 20), metric_rule(2, 1, "< 0", 0)])));
    events.extend(loads(&[(30, 95.0)]));
    check(book(1, &[metric_rule(1, 1, "> 90", 20)]), &events, &["firing 30 since 10"]);
}

#[test]
fn a_deleted_rule_resolves_without_another_sample() {
    let mut events = loads(&[(10, 95.0)]);
    events.push(Event::Logs(11, line("web", 11, "oom")));
    events.push(Event::Rules(book(2, &[])));
    let rules = [metric_rule(1, 1, "> 90", 0), log_rule(2, "oom", "{}", 60)];
    let expected = ["firing 10 since 10", "firing 11 since 11", "resolved 10 since 10", "resolved 11 since 11"];
    check(book(1, &rules), &events, &expected);
}

#[test]
fn a_line_fires_once_and_resolves_after_the_last_match_by_stream_time() {
    let mut events = vec![
        Event::Logs(10, line("web", 10, "it is fine")),
        Event::Logs(11, line("web", 11, "kernel: Out of memory: killed")),
        Event::Logs(30, line("web", 30, "Out of memory")),
    ];
    events.extend(loads(&[(80, 1.0), (91, 1.0)]));
    let said = check(
        book(1, &[log_rule(1, "Out of memory", "{}", 60)]),
        &events,
        &["firing 11 since 11", "resolved 90 since 11"],
    );
    assert_eq!((said[0].line.as_str(), said[1].line.as_str()), ("kernel: Out of memory: killed", "Out of memory"));
    assert!(said[0].value.is_nan());
}

#[test]
fn the_same_line_again_is_no_news_after_it_resolved() {
    let mut events = vec![Event::Logs(10, line("web", 10, "oom"))];
    events.extend(loads(&[(80, 1.0)]));
    events.push(Event::Logs(81, line("web", 10, "oom")));
    events.push(Event::Logs(82, line("web", 82, "oom")));
    let expected = ["firing 10 since 10", "resolved 70 since 10", "firing 82 since 82"];
    check(book(1, &[log_rule(1, "oom", "{}", 60)]), &events, &expected);
}

#[test]
fn a_batch_that_a_client_repeats_is_not_counted_again() {
    let stamped = |part: i64| {
        let mut request = ExportLogsServiceRequest::decode(line("web", 1, "oom").as_slice()).unwrap();
        let mut number = attribute("sightline.batch.part", "");
        number.value = Some(AnyValue { value: Some(any_value::Value::IntValue(part)) });
        let attributes = &mut request.resource_logs[0].resource.as_mut().unwrap().attributes;
        attributes.extend([attribute("sightline.batch.id", "00112233445566778899aabbccddeeff"), number]);
        request.encode_to_vec()
    };
    // The repeat at 4 s does not make the hold of 5 s last until 9 s; another part of the batch does.
    let rules = [log_rule(1, "oom", "{}", 5)];
    let events =
        |part| [Event::Logs(1, stamped(0)), Event::Logs(4, stamped(part)), Event::Metrics(7, load("web", 7, None))];
    check(book(1, &rules), &events(0), &["firing 1 since 1", "resolved 6 since 1"]);
    check(book(1, &rules), &events(1), &["firing 1 since 1"]);
}

#[test]
fn times_of_one_alert_never_run_backwards_though_clocks_differ() {
    // The host's clock is two minutes behind the gateway's.
    let mut events = vec![Event::Logs(130, line("web", 10, "oom"))];
    events.extend(loads(&[(200, 1.0)]));
    events.push(Event::Logs(201, line("web", 81, "oom")));
    let expected = ["firing 10 since 10", "resolved 190 since 10", "firing 190 since 81"];
    check(book(1, &[log_rule(1, "oom", "{}", 60)]), &events, &expected);
}

#[test]
fn log_rules_choose_resources_and_are_told_apart() {
    let rules = [
        log_rule(1, "oom", r#"{host_name="web"}"#, 60),
        log_rule(2, "oom", r#"{resource_id=~"d.*"}"#, 60),
        log_rule(3, "o", "{}", 60),
    ];
    let events = [Event::Logs(10, line("web", 10, "oom oom")), Event::Logs(10, line("db", 10, "oom"))];
    let said = check(book(1, &rules), &events, &["firing 10 since 10"; 4]);
    let fired: Vec<(u128, &str)> = said.iter().map(|d| (d.rule.id.as_u128(), d.resource_id.as_str())).collect();
    assert_eq!(fired, [(3, "web"), (1, "web"), (3, "db"), (2, "db")]);
}

#[test]
fn tenants_do_not_meet() {
    let mut evaluation = Evaluation::new(book(1, &[metric_rule(1, 1, "> 90", 0), log_rule(2, "oom", "{}", 60)]));
    let mut said = Vec::new();
    evaluation.metrics("other", &load("web", 1, Some(99.0)), START, &mut |d| said.push(d)).unwrap();
    evaluation.logs("other", &line("web", 1, "oom"), START, &mut |d| said.push(d)).unwrap();
    assert_eq!(told(&said), [""; 0]);
}

#[test]
fn a_disabled_rule_says_nothing() {
    let mut document = metric_rule(1, 1, "> 90", 0).document.clone();
    document.disabled = true;
    check(book(1, &[rule(1, 1, document)]), &loads(&[(1, 99.0)]), &[]);
}

#[test]
fn damaged_bytes_change_nothing() {
    let mut evaluation = Evaluation::new(book(1, &[]));
    assert!(evaluation.metrics("acme", &[0xff], START, &mut |_| {}).is_err());
    assert!(evaluation.logs("acme", &[0xff], START, &mut |_| {}).is_err());
}

/// A long row of events that fires and resolves many rules, the same for the same seed.
fn events(seed: u64) -> Vec<Event> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut all = Vec::new();
    for second in 0..120 {
        let host = ["web", "db"][usize::try_from(draw(2)).unwrap()];
        let at = second - draw(3).min(second);
        all.push(match draw(8) {
            0 => Event::Logs(second, line(host, at, ["oom", "fine", "panic oom"][usize::try_from(draw(3)).unwrap()])),
            1 => Event::Metrics(second, load(host, at, None)),
            value => Event::Metrics(second, load(host, at, Some([50.0, 95.0][usize::from(value > 3)]))),
        });
    }
    all
}

#[test]
fn whoever_takes_over_from_a_snapshot_decides_what_an_undisturbed_run_decides() {
    let rules = [
        metric_rule(1, 1, "> 90", 7),
        metric_rule(2, 3, "<= 50", 0),
        log_rule(3, "oom", "{}", 5),
        log_rule(4, "panic", r#"{host_name="db"}"#, 20),
    ];
    let book = book(1, &rules);
    let mut transitions = 0;
    for seed in 1..40 {
        let events = events(seed);
        let run = |evaluation: &mut Evaluation, events: &[Event]| {
            let mut said = Vec::new();
            events.iter().for_each(|event| apply(evaluation, event, &mut said));
            said.iter().map(Decision::id).collect::<Vec<String>>()
        };
        let undisturbed = run(&mut Evaluation::new(Arc::clone(&book)), &events);
        transitions += undisturbed.len();
        // Saved after the first part; what the second part said is said again by whoever takes over.
        for (saved, killed) in [(0, 10), (20, 20), (33, 61), (80, 119)] {
            let mut first = Evaluation::new(Arc::clone(&book));
            let mut said = run(&mut first, &events[..saved]);
            let bytes = first.save().to_bytes().unwrap();
            let unsaved = run(&mut first, &events[saved..killed]);
            let mut second = Evaluation::restore(Arc::clone(&book), Saved::from_bytes(&bytes).unwrap());
            let rest = run(&mut second, &events[saved..]);
            assert_eq!(rest[..unsaved.len()], unsaved, "seed {seed}, saved after {saved}, killed after {killed}");
            said.extend(rest);
            assert_eq!(said, undisturbed, "seed {seed}, saved after {saved}, killed after {killed}");
        }
    }
    assert!(transitions > 500, "{transitions} transitions show little");
}
