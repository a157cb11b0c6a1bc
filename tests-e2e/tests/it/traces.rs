//! One trace from a client's line to the page that it causes, and from a user's question to the service that answers.

use std::time::Duration;

use prost::Message as _;
use serde_json::json;
use testkit::eventually;
use tests_e2e::Sightline;
use tests_e2e::client::{Client, encode};
use tests_e2e::otlp;
use tests_e2e::receiver::{Call, Receiver};
use tests_e2e::traces::{Collector, Span};

const PATIENCE: Duration = Duration::from_secs(30);
/// The client's own span, which nobody exports here.
const CLIENT_SPAN: &str = "c11e470000000001";

/// Every step from a line to its page: the service, its span, and the step that caused it.
const STEPS: [(&str, &str, Option<usize>); 7] = [
    ("sightline-ingest-gateway", "ingest", None),
    ("sightline-ingest-gateway", "publish", Some(0)),
    ("sightline-log-writer", "store", Some(1)),
    ("sightline-rule-engine", "evaluate", Some(1)),
    ("sightline-alert-service", "publish", Some(3)),
    ("sightline-dispatcher", "deliver", Some(4)),
    ("sightline-dispatcher", "report", Some(4)),
];
const DELIVER: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_leads_from_a_line_to_its_page_and_from_a_question_to_its_answer() {
    let collector = Collector::start().await;
    let sightline = Sightline::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        // Whose traces are gone on with: a stranger's are only linked to.
        ("SIGHTLINE_TRUSTED_PROXIES", "127.0.0.0/8"),
    ])
    .await;
    let admin = sightline.admin().await;
    a_line_is_followed_to_its_page(&sightline, &admin, &collector).await;
    a_question_is_followed_to_the_service_behind_the_gateway(&admin, &collector).await;
}

async fn a_line_is_followed_to_its_page(sightline: &Sightline, admin: &Client, collector: &Collector) {
    let receiver = Receiver::start().await;
    admin.post("/api/v1/receivers", &json!({"name": "ops", "webhook": {"url": receiver.url}})).await;
    let rule = json!({
        "name": "oom", "level": "error", "log": {"contains": "Out of memory"}, "match": "{}", "receivers": ["ops"],
    });
    admin.post("/api/v1/rules", &rule).await;
    // A rule is in force within a second of its creation: each attempt is a line and a trace of its own.
    let mut attempt = 0;
    let (trace, call) = eventually("a line reaches the webhook", PATIENCE, async || {
        attempt += 1;
        let trace = format!("{:024x}{attempt:08x}", 0xf0110);
        let line = format!("Out of memory: attempt {attempt}");
        send(sightline, &line, &traceparent(&trace)).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while tokio::time::Instant::now() < deadline {
            if let Some(call) = receiver.calls().iter().find(|call| call.body.to_string().contains(&line)) {
                return Ok((trace, call.clone()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("no call came\n{}", sightline.tail("rule-engine")))
    })
    .await;
    let steps = eventually("every step is in the trace", PATIENCE, async || {
        let spans = collector.trace(&trace);
        steps(&spans).map_err(|missing| format!("{missing} is not there: {spans:#?}"))
    })
    .await;
    for ((service, name, cause), span) in STEPS.iter().zip(&steps) {
        let cause = cause.map_or(CLIENT_SPAN, |cause| &steps[cause].id);
        assert_eq!(span.parent, cause, "the parent of {name} in {service}; {steps:#?}");
    }
    the_webhook_continues(&call, &trace, &steps[DELIVER]);
}

/// The span of each step, or the step that has none. Of several with one name, the one that something came of.
fn steps(spans: &[Span]) -> Result<Vec<Span>, String> {
    let of_step = |(service, name, _): &(&str, &str, _)| {
        let named = || spans.iter().filter(|span| span.service == *service && span.name == *name);
        let caused = |span: &&Span| spans.iter().any(|other| other.parent == span.id);
        named().find(caused).or_else(|| named().next()).cloned().ok_or_else(|| format!("{name} of {service}"))
    };
    STEPS.iter().map(of_step).collect()
}

fn the_webhook_continues(call: &Call, trace: &str, deliver: &Span) {
    assert_eq!(call.traceparent, format!("00-{trace}-{}-01", deliver.id));
}

async fn a_question_is_followed_to_the_service_behind_the_gateway(admin: &Client, collector: &Collector) {
    let questions = [
        (format!("/api/v1/logs?contains={}", encode("Out of memory")), "sightline-log-writer"),
        ("/api/v1/rules".to_owned(), "sightline-rule-engine"),
    ];
    for (number, (path, service)) in questions.iter().enumerate() {
        let trace = format!("{:024x}{number:08x}", 0xa5ced);
        admin.with_traceparent(&traceparent(&trace)).get(path).await.unwrap();
        let (asked, answered) = eventually("the question is in the trace", PATIENCE, async || {
            let spans = collector.trace(&trace);
            let find = |service: &str, name: &str| {
                spans.iter().find(|span| span.service == service && span.name == name).cloned()
            };
            let pair = find("sightline-api-gateway", "http").zip(find(service, "grpc"));
            pair.ok_or_else(|| format!("{path}: {spans:#?}"))
        })
        .await;
        assert_eq!(asked.parent, CLIENT_SPAN, "{path}");
        assert_eq!(answered.parent, asked.id, "{path}");
    }
}

/// One log line, sent as an instrumented client would.
async fn send(sightline: &Sightline, line: &str, traceparent: &str) {
    let body = otlp::logs("traced", otlp::now(), [line.to_owned()]).encode_to_vec();
    let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
    let request = http.post(format!("{}/v1/logs", sightline.ingest_http())).body(body);
    let request = request.header("content-type", "application/x-protobuf").header("traceparent", traceparent);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

fn traceparent(trace: &str) -> String {
    format!("00-{trace}-{CLIENT_SPAN}-01")
}
