//! The broker away, cut off from one replica, or faster than we are: clients are told what they miss.

use std::time::Duration;

use bus::{Outgoing, Subject};
use prost::Message as _;
use proto::alerts::{Alert, AlertChanged};
use serde_json::Value;
use testkit::Gate;

use crate::support::{Client, PATIENCE, Running};

impl Client {
    /// The next frame that is no ping.
    async fn news(&mut self) -> Value {
        loop {
            let frame = self.frame().await;
            if frame["type"] != "ping" {
                return frame;
            }
        }
    }
}

#[tokio::test]
async fn who_gives_up_while_the_broker_is_away_leaves_and_who_waits_is_greeted() {
    let gate = Gate::before(&testkit::servers().nats).await;
    let running = Running::behind(&gate, |_| {}).await;
    gate.close();
    let impatient = running.waits(&running.good_token("default"), "/ws/logs").await;
    let mut patient = running.waits(&running.good_token("default"), "/ws/logs").await;
    running.until_clients(2).await;
    drop(impatient);
    running.until_clients(1).await;
    gate.open();
    assert_eq!(patient.news().await["type"], "hello");
    running.lines("default", "web-1", &["after"]).await;
    assert_eq!(patient.line().await, "after");
    running.stop().await;
}

#[tokio::test]
async fn who_is_too_far_behind_goes_on_with_the_present_and_says_so() {
    let running = Running::with(|config| config.live.behind = Duration::ZERO).await;
    let mut client = running.listen("default", "/ws/logs").await;
    let told = async {
        for line in 0.. {
            running.lines("default", "web-1", &[&line.to_string()]).await;
            while let Ok(frame) = tokio::time::timeout(Duration::from_millis(20), client.news()).await {
                if frame["type"] == "gap" {
                    return frame;
                }
            }
        }
        Value::Null
    };
    let gap = tokio::time::timeout(PATIENCE, told).await.expect("a gap is told");
    assert_eq!(gap["why"], "behind");
    assert!(gap["from"].as_str().unwrap() < gap["until"].as_str().unwrap(), "{gap}");
    assert!(running.metric("sightline_ws_fanout_gaps_total{why=\"behind\"}").unwrap() > 0);
    running.stop().await;
}

#[tokio::test]
async fn what_was_evicted_unread_is_told() {
    let gate = Gate::before(&testkit::servers().nats).await;
    let running = Running::behind(&gate, |config| config.live.behind = Duration::from_secs(3_600)).await;
    let mut client = running.listen("default", "/ws/alerts").await;
    gate.close();
    // More than the stream holds.
    for number in 0..24 {
        let alert = Alert { id: number.to_string(), line: "x".repeat(900 << 10), ..Alert::default() };
        let id = number.to_string();
        let changed = AlertChanged { id, tenant: "default".to_owned(), alert: Some(alert), ..AlertChanged::default() };
        let payload = changed.encode_to_vec();
        running.publish_raw(Subject::AlertsChanged, |id| Outgoing::new(id, payload)).await;
    }
    gate.open();
    let first = client.news().await;
    assert_eq!((&first["type"], &first["why"]), (&"gap".into(), &"evicted".into()), "{first}");
    assert_ne!(client.news().await["id"], "0");
    running.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_disturbs_no_other_and_its_clients_see_the_rest_or_a_gap() {
    let gate = Gate::before(&testkit::servers().nats).await;
    let one = Running::start().await;
    let other = one.replica(&gate).await;
    let mut well = one.listen("default", "/ws/logs").await;
    let mut cut_off = other.listen("default", "/ws/logs").await;
    gate.close();
    for line in ["one", "two"] {
        one.lines("default", "web-1", &[line]).await;
        assert_eq!(well.line().await, line);
    }
    gate.open();
    let frame = cut_off.news().await;
    if frame["type"] == "gap" {
        one.lines("default", "web-1", &["three"]).await;
    } else {
        assert_eq!(frame["body"], "one");
        assert_eq!(cut_off.line().await, "two");
    }
    other.process.clone().stop().await;
    one.stop().await;
}
