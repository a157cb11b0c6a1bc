//! What is published comes to those who want it, and to nobody else.

use std::collections::HashMap;
use std::time::Duration;

use authn::Permission;
use bus::{Outgoing, Subject};
use prost::Message as _;
use proto::alerts::{Alert, AlertChanged};
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

#[tokio::test]
async fn a_name_means_what_it_means_in_rules_and_queries() {
    let running = Running::start().await;
    let mut instrument = running.listen("default", "/ws/metrics?name=x.latency").await;
    let mut stored = running.listen("default", "/ws/metrics?name=x_latency_seconds").await;
    running.publish(Subject::Metrics(0), &gauges("default", "web-1", &[("x.other", 1.0), ("x.latency", 2.0)])).await;
    for client in [&mut instrument, &mut stored] {
        assert_eq!(client.frame().await["name"], "x_latency_seconds");
    }
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_read_for_a_tenant_or_a_shard_without_listeners() {
    let running = Running::start().await;
    let id = model::identify("default", [("host.name", "web-1")]).id;
    let shard = model::shard("default", &id, 2);
    let mut client = running.listen("default", &format!("/ws/logs?resource_id={id}")).await;
    running.lines("other", "web-1", &["secret"]).await;
    let mut mine = logs("default", "web-1", &["mine"]);
    mine.body = crate::support::with_resource_id(&mine.body, &id.to_string());
    running.publish(Subject::Logs(1 - shard), &logs("other", "web-2", &["unheard"])).await;
    running.publish(Subject::Logs(shard), &logs("other", "web-2", &["secret"])).await;
    running.publish(Subject::Logs(shard), &mine).await;
    assert_eq!(client.line().await, "mine");
    assert_eq!(running.metric("sightline_ws_fanout_events_total"), Some(1));
    let passed = running.metric("sightline_ws_fanout_passed_messages_total").unwrap();
    assert_eq!(passed, if shard == 0 { 2 } else { 1 }, "the other shard is not followed at all");
    running.stop().await;
}

#[tokio::test]
async fn a_dotted_label_and_a_stored_one_choose_alike() {
    let running = Running::start().await;
    let mut dotted = running.listen("default", "/ws/logs?match=%7Bhost.name%3D%22web-2%22%7D").await;
    running.lines("default", "web-1", &["one"]).await;
    running.lines("default", "web-2", &["two"]).await;
    assert_eq!(dotted.line().await, "two");
    running.stop().await;
}

fn change(id: &str, tenant: &str, host: &str) -> Vec<u8> {
    let labels =
        HashMap::from([("alertname".to_owned(), "High load".to_owned()), ("kind".to_owned(), "host".to_owned())]);
    let alert = Alert {
        id: format!("alert-{host}"),
        rule_id: "r1".to_owned(),
        rule_name: "High load".to_owned(),
        state: "firing".to_owned(),
        level: "critical".to_owned(),
        value: 0.97,
        starts_unix_nano: 1_790_230_470_000_000_000,
        labels,
        descriptive_labels: HashMap::from([("host_name".to_owned(), host.to_owned())]),
        resource_id: format!("host-{host}"),
        ..Alert::default()
    };
    let changed = AlertChanged {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        alert: Some(alert),
        change: "opened".to_owned(),
        revision: 1,
        ..AlertChanged::default()
    };
    changed.encode_to_vec()
}

#[tokio::test]
async fn a_change_of_an_alert_comes_once_and_as_the_api_shows_it() {
    let running = Running::start().await;
    let mut client = running.listen("default", &format!("/ws/alerts?{WEB_2}")).await;
    let mut by_id = running.listen("default", "/ws/alerts?resource_id=host-web-2").await;
    for (id, tenant, host) in
        [("a", "other", "web-2"), ("b", "default", "web-1"), ("c", "default", "web-2"), ("c", "default", "web-2")]
    {
        running.publish_raw(Subject::AlertsChanged, |unique| Outgoing::new(unique, change(id, tenant, host))).await;
    }
    running.publish_raw(Subject::AlertsChanged, |id| Outgoing::new(id, change("d", "default", "web-2"))).await;
    for client in [&mut client, &mut by_id] {
        let frame = client.frame().await;
        assert_eq!((&frame["type"], &frame["id"]), (&"alert".into(), &"alert-web-2".into()));
        assert_eq!(
            (&frame["change"], &frame["state"], &frame["level"]),
            (&"opened".into(), &"firing".into(), &"critical".into())
        );
        assert_eq!(
            (&frame["rule_name"], &frame["value"], &frame["line"]),
            (&"High load".into(), &0.97.into(), &serde_json::Value::Null)
        );
        assert_eq!(
            (&frame["starts_at"], &frame["ends_at"]),
            (&"2026-09-24T06:14:30Z".into(), &serde_json::Value::Null)
        );
        assert_eq!(frame["labels"]["alertname"], "High load");
        assert_eq!(client.frame().await["id"], "alert-web-2", "the next change, not a repetition");
    }
    assert_eq!(running.metric("sightline_ws_fanout_events_total"), Some(3));
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
async fn drain_says_good_bye() {
    let running = Running::start().await;
    let mut quiet = running.listen("default", "/ws/alerts").await;
    let mut reading = running.listen("default", "/ws/logs").await;
    running.process.clone().stop().await;
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

#[tokio::test]
async fn a_socket_does_not_outlive_a_token_that_was_taken_back() {
    let running = Running::start().await;
    let (one, other) = (running.issue("default"), running.issue("default"));
    let mut client = running.listen_with(&one.token, "/ws/logs").await;
    let mut stays = running.listen_with(&other.token, "/ws/logs").await;
    running.revoke(&one.id.to_string());
    let (code, reason) = client.farewell().await;
    assert_eq!(code, CloseCode::Policy);
    assert!(reason.contains("taken back"), "{reason}");
    running.lines("default", "web-1", &["still here"]).await;
    assert_eq!(stays.line().await, "still here");
    running.stop().await;
}
