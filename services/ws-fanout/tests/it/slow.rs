//! A client that does not read costs itself frames, and nobody else.

use std::time::Duration;

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::{Client, PATIENCE, Running};

/// Well more, in all, than the operating system holds back for one connection.
const ROUNDS: u64 = 80;
const LINES_A_ROUND: u64 = 8;
/// Room for some fifteen lines of a client that does not read.
const QUEUE: u64 = 1 << 20;

/// Lines of 64 KiB, each beginning with its number.
fn round(number: u64) -> Vec<String> {
    let first = number * LINES_A_ROUND;
    (first..first + LINES_A_ROUND).map(|line| format!("{line} {}", "x".repeat(64 << 10))).collect()
}

fn number(line: &str) -> u64 {
    line.split_once(' ').unwrap().0.parse().unwrap()
}

/// Publishes everything while `reader` reads along; it must see every line.
async fn flood(running: &Running, reader: &mut Client) {
    for rounds in 0..ROUNDS {
        let lines = round(rounds);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        running.lines("default", "web-1", &lines).await;
        for line in lines {
            assert_eq!(number(&reader.line().await), number(line));
        }
    }
}

#[tokio::test]
async fn the_oldest_are_dropped_for_a_slow_client_only_and_it_is_told_how_many() {
    let running = Running::with(|config| config.live.queue = QUEUE).await;
    let mut slow = running.listen("default", "/ws/logs").await;
    let mut fast = running.listen("default", "/ws/logs").await;
    flood(&running, &mut fast).await;
    let (mut expected, mut dropped) = (0, 0);
    while expected < ROUNDS * LINES_A_ROUND {
        let frame = slow.frame().await;
        if frame["type"] == "dropped" {
            let count = frame["count"].as_u64().unwrap();
            expected += count;
            dropped += count;
        } else {
            assert_eq!(number(frame["body"].as_str().unwrap()), expected);
            expected += 1;
        }
    }
    assert!(dropped > 0);
    // What the queue and the operating system held is what came; the rest was dropped.
    let held = (ROUNDS * LINES_A_ROUND - dropped) * (64 << 10);
    assert!(held < QUEUE + (16 << 20), "{held} bytes were kept for a client that did not read");
    assert_eq!(running.metric("sightline_ws_fanout_dropped_frames_total"), Some(dropped));
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_at_all_is_closed() {
    let configure = |config: &mut ws_fanout::config::Config| config.live.stalled_after = Duration::from_millis(300);
    let running = Running::with(configure).await;
    let mut stalled = running.listen("default", "/ws/logs").await;
    let mut reader = running.listen("default", "/ws/logs").await;
    flood(&running, &mut reader).await;
    testkit::eventually("the stalled client is given up", PATIENCE, async || {
        match running.metric("sightline_ws_fanout_clients") {
            Some(1) => Ok(()),
            clients => Err(format!("{clients:?} clients")),
        }
    })
    .await;
    assert_eq!(running.metric("sightline_ws_fanout_stalled_clients_total"), Some(1));
    while let Some(Ok(message)) = stalled.any().await {
        if let tokio_tungstenite::tungstenite::Message::Close(Some(close)) = message {
            assert_eq!(close.code, CloseCode::Policy);
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_message_whose_labels_are_repeated_with_each_sample_costs_no_more_than_its_limit() {
    const SAMPLES: u64 = 5_000;
    let running = Running::with(|config| config.live.message_bytes = 256 << 10).await;
    let mut client = running.listen("default", "/ws/metrics").await;
    let names: Vec<String> = (0..SAMPLES).map(|n| format!("queue.depth.{n}")).collect();
    let values: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
    running.publish(bus::Subject::Metrics(0), &crate::support::gauges("default", &"h".repeat(3_000), &values)).await;
    running.publish(bus::Subject::Metrics(0), &crate::support::gauges("default", "web-1", &[("last", 1.0)])).await;
    let (mut shown, mut dropped, mut bytes) = (0, 0, 0);
    loop {
        let frame = client.frame().await;
        match frame["type"].as_str() {
            Some("dropped") => dropped += frame["count"].as_u64().unwrap(),
            _ if frame["name"] == "last" => break,
            _ => (shown, bytes) = (shown + 1, bytes + frame.to_string().len()),
        }
    }
    assert_eq!(shown + dropped, SAMPLES);
    assert!(shown > 0 && bytes < 300 << 10, "{shown} frames of {bytes} bytes");
    running.stop().await;
}
