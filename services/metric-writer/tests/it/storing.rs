//! The ordinary way.

use std::time::Duration;

use bus::{Stream, Subject};
use opentelemetry_proto::tonic::metrics::v1::{Histogram, HistogramDataPoint, Metric, metric};

use crate::front::{Front, Writes};
use crate::support::{Observer, PATIENCE, REDELIVERY, attribute, now, request, request_of};

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
    observer.wait_for("up", &[1.0]).await;
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_that_comes_again_changes_nothing() {
    let observer = Observer::start().await;
    let writer = observer.writer(&testkit::metrics_url()).await;
    let envelope = observer.envelope("up", 1.0, 10);
    observer.publish("first", &envelope).await;
    observer.wait_for("up", &[1.0]).await;
    observer.publish("again", &envelope).await;
    observer.wait_for_acknowledged(2).await;
    observer.wait_for("up", &[1.0]).await;
    // Without the store's part in it, it would be there twice.
    assert_eq!(observer.raw("up").await, [1.0, 1.0]);
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
    // What was on its way to a reader that is gone comes again only when the broker has waited for it.
    observer.wait_long_for_acknowledged(200, REDELIVERY).await;
    observer.wait_for("count", &expected).await;
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_passed_over_and_counted_apart() {
    let observer = Observer::start().await;
    let writer = observer.writer(&testkit::metrics_url()).await;
    observer.bus.tick(Subject::Metrics(0), testkit::now()).await.unwrap();
    observer.publish("m", &observer.envelope("up", 1.0, 10)).await;
    observer.bus.tick(Subject::Metrics(0), testkit::now()).await.unwrap();
    observer.wait_for_acknowledged(3).await;
    let account = observer.account().await;
    assert_eq!((account.stored, account.stored_items, account.passed, account.dead), (1, 1, 2, 0));
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_would_drop_is_not_written() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    let writer = observer.writer(&front.url()).await;
    let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    let mut body = request("future", 1.0, now() + days(3));
    body.extend(request("ancient", 1.0, now() - days(40)));
    body.extend(request("not_a_number", f64::NAN, now()));
    body.extend(request("good", 1.0, now() - days(29)));
    observer.publish("m", &observer.envelope_of(body)).await;
    observer.wait_for_acknowledged(1).await;
    observer.wait_for("good", &[1.0]).await;
    for name in ["future", "ancient", "not_a_number"] {
        assert_eq!(front.writes_with(name), 0, "{name}");
    }
    writer.stop().await;
    observer.stop().await;
}

/// A histogram of a thousand buckets, whose attributes come to what a gateway takes of such a point.
fn worst(number: u32) -> HistogramDataPoint {
    let mut attributes: Vec<_> = (0..19).map(|n| attribute(&format!("key.{n}"), &"x".repeat(20))).collect();
    attributes.push(attribute("number", &number.to_string()));
    HistogramDataPoint {
        time_unix_nano: u64::try_from(now().as_nanos()).unwrap(),
        attributes,
        explicit_bounds: (0..1_000_u32).map(f64::from).collect(),
        bucket_counts: vec![1; 1_001],
        count: 1_001,
        ..Default::default()
    }
}

fn worst_body(numbers: std::ops::Range<u32>) -> Vec<u8> {
    let data =
        metric::Data::Histogram(Histogram { data_points: numbers.map(worst).collect(), aggregation_temporality: 2 });
    request_of(vec![Metric { name: "worst".to_owned(), data: Some(data), ..Default::default() }])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_envelopes_take_little_memory() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    front.writes(Writes::Lost);
    for envelope in 0..4 {
        // About the half mebibyte that an envelope may have.
        let body = worst_body(envelope * 30..(envelope + 1) * 30);
        assert!((400 << 10..=512 << 10).contains(&body.len()), "{}", body.len());
        observer.publish(&format!("m{envelope}"), &observer.envelope_of(body)).await;
    }
    let program = observer.program(&front.url()).await.with("SIGHTLINE_SERIES_CACHE", "32MiB");
    let writer = program.start();
    observer.wait_long_for_acknowledged(4, REDELIVERY).await;
    let most = writer.most_memory();
    assert!(most < 256 << 20, "{most} bytes for four envelopes");
    assert_eq!(observer.account().await.dead, 0);
    writer.kill();
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_point_is_stored_in_small_requests() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    let writer = observer.writer_with(&front.url(), &["--request-bytes", "64KiB", "--write-bytes", "64KiB"]).await;
    observer.publish("m", &observer.envelope_of(worst_body(0..1))).await;
    observer.wait_for_acknowledged(1).await;
    testkit::eventually("every bucket being stored", PATIENCE, async || {
        match observer.stored("worst_.*").await.len() {
            1_002 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let (requests, largest) = front.sizes();
    assert!(requests > 5 && largest <= 64 << 10, "{requests} requests, the largest of {largest} bytes");
    writer.stop().await;
    observer.stop().await;
}
