//! What is published comes to those who want it, and to nobody else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use authn::Permission;
use bus::{Outgoing, Subject};
use prost::Message as _;
use proto::alerts::Transition;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::{Running, gauges, logs};

/// `{host_name="web-2",kind="host"}`
const WEB_2: &str = "match=%7Bhost_name%3D%22web-2%22%2Ckind%3D%22host%22%7D";

#[tokio::test]
async fn a_line_comes_to_its_tenant_and_selector_only() {
    let running = Running::start().await;
    let mut all = running.listen("default", "/ws/logs").await;
    let mut chosen = running.listen("default", &format!("/ws/logs?{WEB_2}")).await;
    let mut through_api = running.listen("default", &format!("/api/v1/ws/logs?{WEB_2}")).await;
    let mut by_id = running.listen("default", "/ws/logs?resource_id=host-web-1").await;
    let mut other = running.listen("other", "/ws/logs").await;
    running.lines("default", "web-1", &["one"]).await;
    running.lines("other", "web-2", &["secret"]).await;
    running.lines("default", "web-2", &["two", "three"]).await;
    running.lines("other", "web-1", &["end"]).await;
    running.lines("default", "web-1", &["four"]).await;
    running.lines("default", "web-2", &["five"]).await;
    for (client, wanted) in [
        (&mut all, &["one", "two", "three", "four", "five"][..]),
        (&mut chosen, &["two", "three", "five"]),
        (&mut through_api, &["two", "three", "five"]),
        (&mut by_id, &["one", "four"]),
        (&mut other, &["secret", "end"]),
    ] {
        for line in wanted {
            assert_eq!(client.line().await, *line);
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_a_client_repeats_is_shown_once() {
    let running = Running::start().await;
    let mut client = running.listen("default", "/ws/logs").await;
    let batch = logs("default", "web-1", &["one"]);
    running.publish(Subject::Logs(1), &batch).await;
    running.publish(Subject::Logs(1), &batch).await;
    running.publish(Subject::Logs(1), &logs("default", "web-1", &["two"])).await;
    assert_eq!(client.line().await, "one");
    assert_eq!(client.line().await, "two");
    running.stop().await;
}

#[tokio::test]
async fn a_line_says_where_it_is_from() {
    let running = Running::start().await;
    let mut client = running.listen("default", "/ws/logs").await;
    running.publish(Subject::Logs(1), &logs("default", "web-1", &["out of \"memory\""])).await;
    let frame = client.frame().await;
    assert_eq!(frame["body"], "out of \"memory\"");
    assert_eq!(frame["level"], "error");
    assert_eq!(frame["host_name"], "web-1");
    assert_eq!(frame["resource_id"], "host-web-1");
    assert_eq!(frame["source"], "sshd");
    assert!(frame["time"].as_str().unwrap().ends_with('Z'), "{frame}");
    running.stop().await;
}

#[tokio::test]
async fn samples_are_chosen_by_their_dotted_name() {
    let running = Running::start().await;
    let mut chosen = running.listen("default", "/ws/metrics?name=queue.depth").await;
    let mut both = running.listen("default", &format!("/ws/metrics?name=queue.depth&name=queue_age&{WEB_2}")).await;
    let values = [("queue.length", 1.0), ("queue.depth", 7.5), ("queue.age", f64::INFINITY)];
    running.publish(Subject::Metrics(1), &gauges("other", "web-2", &values)).await;
    running.publish(Subject::Metrics(1), &gauges("default", "web-1", &values)).await;
    running.publish(Subject::Metrics(1), &gauges("default", "web-2", &values)).await;
    for host in ["web-1", "web-2"] {
        let frame = chosen.frame().await;
        assert_eq!((&frame["type"], &frame["name"]), (&"metric".into(), &"queue_depth".into()));
        assert_eq!((&frame["value"], &frame["labels"]["host_name"]), (&7.5.into(), &host.into()));
        assert!(frame["labels"].get("tenant").is_none(), "{frame}");
    }
    assert_eq!(both.frame().await["name"], "queue_depth");
    let infinite = both.frame().await;
    assert_eq!(infinite["name"], "queue_age");
    assert!(infinite["value"].is_null(), "{infinite}");
    running.stop().await;
}

fn transition(id: &str, tenant: &str, host: &str) -> Transition {
    Transition {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        rule_id: "r1".to_owned(),
        rule_name: "High load".to_owned(),
        state: "firing".to_owned(),
        level: "critical".to_owned(),
        value: 0.97,
        sample_unix_nano: 1_790_230_470_000_000_000,
        series_labels: HashMap::from([
            ("host_name".to_owned(), host.to_owned()),
            ("kind".to_owned(), "host".to_owned()),
        ]),
        resource_id: format!("host-{host}"),
        ..Transition::default()
    }
}

#[tokio::test]
async fn a_transition_comes_as_an_alert() {
    let running = Running::start().await;
    let mut client = running.listen("default", &format!("/ws/alerts?{WEB_2}")).await;
    for (id, tenant, host) in [("a", "other", "web-2"), ("b", "default", "web-1"), ("c", "default", "web-2")] {
        let payload = transition(id, tenant, host).encode_to_vec();
        running.publish_raw(Subject::Transitions, |id| Outgoing::new(id, payload)).await;
    }
    let frame = client.frame().await;
    assert_eq!((&frame["type"], &frame["id"]), (&"alert".into(), &"c".into()));
    assert_eq!((&frame["state"], &frame["level"]), (&"firing".into(), &"critical".into()));
    assert_eq!((&frame["rule_name"], &frame["value"]), (&"High load".into(), &0.97.into()));
    assert_eq!(frame["time"], "2026-09-24T06:14:30Z");
    assert_eq!(frame["labels"]["alertname"], "High load");
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_counted_and_stops_nothing() {
    let running = Running::start().await;
    let mut client = running.listen("default", "/ws/logs").await;
    running.publish_raw(Subject::Logs(0), |id| Outgoing::new(id, "no envelope at all")).await;
    running.lines("default", "web-1", &["after"]).await;
    assert_eq!(client.line().await, "after");
    assert_eq!(running.metric("sightline_ws_fanout_unreadable_messages_total"), Some(1));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_when_the_last_one_goes_misses_nothing() {
    let running = Running::start().await;
    let mut client = running.listen("default", "/ws/logs").await;
    for round in 0..30 {
        let line = format!("line {round}");
        let (next, ()) = tokio::join!(running.listen("default", "/ws/logs"), async { drop(client) });
        client = next;
        running.lines("default", "web-1", &[&line]).await;
        assert_eq!(client.line().await, line);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_line_of_two_megabytes_comes_whole() {
    let running = Running::start().await;
    let mut client = running.listen("default", "/ws/logs").await;
    let line = "x".repeat(2 << 20);
    running.lines("default", "web-1", &[&line]).await;
    assert_eq!(client.line().await.len(), line.len());
    running.stop().await;
}

#[tokio::test]
async fn drain_says_good_bye_and_does_not_wait() {
    let running = Running::start().await;
    let mut quiet = running.listen("default", "/ws/alerts").await;
    let mut reading = running.listen("default", "/ws/logs").await;
    let begun = Instant::now();
    running.process.clone().stop().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for client in [&mut quiet, &mut reading] {
        assert_eq!(client.farewell().await.0, CloseCode::Away);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_socket_does_not_outlive_its_token() {
    let running = Running::start().await;
    let token = running.token("default", &[Permission::LogsRead], Duration::from_secs(2));
    let mut client = running.listen_with(&token, "/ws/logs").await;
    let (code, reason) = client.farewell().await;
    assert_eq!(code, CloseCode::Policy);
    assert!(reason.contains("expired"), "{reason}");
    running.stop().await;
}
