//! The ordinary way.

use bus::Stream;

use crate::front::{Front, Writes};
use crate::support::{Observer, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_value_can_be_queried() {
    let observer = Observer::start().await;
    let writer = observer.writer(&testkit::metrics_url()).await;
    for (n, value) in [1.5, -2.0, 1e9].into_iter().enumerate() {
        let ago = 30 - u64::try_from(n).unwrap();
        observer.publish(&format!("m{n}"), &observer.envelope("temperature", value, ago)).await;
    }
    observer.wait_for("temperature", &[1.5, -2.0, 1e9]).await;
    observer.wait_for_acknowledged(3).await;
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_hears_done_only_after_the_store_has_answered() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    front.writes(Writes::Unavailable);
    let writer = observer.writer(&front.url()).await;
    observer.publish("m", &observer.envelope("up", 1.0, 10)).await;
    testkit::eventually(
        "a second attempt",
        PATIENCE,
        async || {
            if front.seen_writes() >= 2 { Ok(()) } else { Err("not yet") }
        },
    )
    .await;
    let progress = observer.bus.progress(Stream::Metrics(0)).await.unwrap();
    assert_eq!((progress.stored, progress.delivered), (0, 1));
    front.writes(Writes::Pass);
    observer.wait_for_acknowledged(1).await;
    assert_eq!(observer.stored("up").await, [1.0]);
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_that_comes_again_changes_nothing() {
    let observer = Observer::start().await;
    let writer = observer.writer(&testkit::metrics_url()).await;
    let envelope = observer.envelope("up", 1.0, 10);
    observer.publish("first", &envelope).await;
    observer.publish("again", &envelope).await;
    observer.wait_for_acknowledged(2).await;
    assert_eq!(observer.stored("up").await, [1.0]);
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_in_flight_and_leaves_the_rest_for_the_next() {
    let observer = Observer::start().await;
    let expected: Vec<f64> = (0..200_u32).map(f64::from).collect();
    let writer = observer.writer(&testkit::metrics_url()).await;
    for (n, value) in (0_u64..).zip(&expected) {
        observer.publish(&format!("m{n}"), &observer.envelope("count", *value, 300 - n)).await;
    }
    writer.stop().await;
    let account = observer.account().await;
    assert_eq!(account.received, 200);
    let writer = observer.writer(&testkit::metrics_url()).await;
    observer.wait_for("count", &expected).await;
    observer.wait_for_acknowledged(200).await;
    writer.stop().await;
    observer.stop().await;
}
