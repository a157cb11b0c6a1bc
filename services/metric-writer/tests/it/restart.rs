//! A store that answered, lost what it answered for, and is there again.

use std::fmt::Write as _;

use crate::front::{Front, Writes};
use crate::support::{Observer, now, wait_until_ready};

async fn publish(observer: &Observer, name: &str, count: u32) -> Vec<f64> {
    for n in 0..count {
        let envelope = observer.envelope(name, f64::from(n), 100 - u64::from(n));
        observer.publish(&format!("{name}-{n}"), &envelope).await;
    }
    (0..count).map(f64::from).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_writer_writes_again_what_a_killed_store_lost() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    let writer = observer.writer(&front.url()).await;
    wait_until_ready(&writer).await;
    front.writes(Writes::Lost);
    let expected = publish(&observer, "count", 30).await;
    observer.wait_for_acknowledged(30).await;
    assert_eq!(observer.stored("count").await, [0.0; 0]);
    front.writes(Writes::Pass);
    front.restart_store();
    observer.wait_for("count", &expected).await;
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_of_what_the_store_refuses_are_written_again() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    let writer = observer.writer(&front.url()).await;
    wait_until_ready(&writer).await;
    front.writes(Writes::Lost);
    observer.publish("refused", &observer.envelope("poison", 1.0, 50)).await;
    let expected = publish(&observer, "count", 30).await;
    observer.wait_for_acknowledged(31).await;
    front.writes(Writes::Refused("poison"));
    front.restart_store();
    observer.wait_for("count", &expected).await;
    assert_eq!(observer.stored("poison").await, [0.0; 0]);
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_down_meanwhile_writes_it_again_too() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    front.writes(Writes::Lost);
    let writer = observer.writer(&front.url()).await;
    let expected = publish(&observer, "count", 30).await;
    observer.wait_for_acknowledged(30).await;
    writer.stop().await;
    front.writes(Writes::Pass);
    front.restart_store();
    let writer = observer.writer(&front.url()).await;
    observer.wait_for("count", &expected).await;
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_in_the_store_say_where_to_begin() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    front.writes(Writes::Lost);
    let writer = observer.writer(&front.url()).await;
    // It has seen to the store, so that each envelope is written once.
    wait_until_ready(&writer).await;
    for n in 0..5_u32 {
        let name = format!("count_{n}");
        observer.publish(&name, &observer.envelope(&name, 1.0, 10)).await;
    }
    observer.wait_for_acknowledged(5).await;
    writer.stop().await;
    // Notes as a writer leaves them: the newest is 6 s old, and 36 s ago the first three messages had been stored.
    let namespace = &observer.bus.settings().namespace;
    let mut notes = String::new();
    for (ago, stored) in [(60, 1), (40, 3), (20, 4), (6, 5)] {
        let at = now().as_millis() - ago * 1_000;
        let labels = format!("namespace=\"{namespace}\"");
        writeln!(notes, "sightline_metric_writer_seen_store_start{{{labels}}} 12345 {at}").unwrap();
        writeln!(notes, "sightline_metric_writer_seen_stored{{{labels},shard=\"0\"}} {stored} {at}").unwrap();
    }
    let base = testkit::metrics_url();
    let http = reqwest::Client::new();
    let import = http.post(format!("{base}/api/v1/import/prometheus")).body(notes).send().await.unwrap();
    assert!(import.status().is_success());
    http.get(format!("{base}/internal/force_flush")).send().await.unwrap();
    front.writes(Writes::Pass);
    front.restart_store();
    let before: Vec<usize> = (0..5).map(|n| front.writes_with(&format!("count_{n}"))).collect();
    assert_eq!(before, [1; 5]);
    let writer = observer.writer(&front.url()).await;
    observer.wait_for("count_4", &[1.0]).await;
    observer.wait_for("count_3", &[1.0]).await;
    let after: Vec<usize> = (0..5).map(|n| front.writes_with(&format!("count_{n}"))).collect();
    assert_eq!(after, [1, 1, 1, 2, 2]);
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_soon_after_another_writes_nothing_again() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    let writer = observer.writer(&front.url()).await;
    wait_until_ready(&writer).await;
    let expected = publish(&observer, "count", 10).await;
    observer.wait_for("count", &expected).await;
    observer.wait_for_acknowledged(10).await;
    writer.stop().await;
    front.clear();
    let writer = observer.writer(&front.url()).await;
    wait_until_ready(&writer).await;
    observer.publish("last", &observer.envelope("last", 1.0, 10)).await;
    observer.wait_for("last", &[1.0]).await;
    assert_eq!((front.writes_with("count"), front.writes_with("last")), (0, 1));
    writer.stop().await;
    observer.stop().await;
}
