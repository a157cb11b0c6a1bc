//! Envelopes that can never be stored.

use std::time::Duration;

use bus::{From, Stream};

use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, metric, number_data_point};

use crate::front::{Front, Writes};
use crate::support::{Observer, PATIENCE, REDELIVERY, attribute, now, request_of, wait_for_missing, wait_until_ready};

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_stored_is_a_dead_letter_and_its_neighbours_are_stored() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    front.writes(Writes::Refused("poison"));
    let mut dead = observer.bus.follow(Stream::Dead, From::New).await;
    for n in 0..9_u32 {
        let envelope = observer.envelope("good", f64::from(n), 100 - u64::from(n));
        observer.publish(&format!("good-{n}"), &envelope).await;
        if n == 4 {
            observer.publish("refused", &observer.envelope("poison", 1.0, 50)).await;
            observer.publish("nonsense", &observer.envelope_of(vec![0x0a, 0x7f])).await;
        }
    }
    let unknown = observer.envelope("good", 0.0, 1).encode("unknown").unwrap();
    observer.send(unknown.header("Sl-Schema", "otlp.metrics.v9")).await;
    // All wait, so that they are written together.
    let writer = observer.writer(&front.url()).await;
    let expected: Vec<f64> = (0..9_u32).map(f64::from).collect();
    observer.wait_for("good", &expected).await;
    let mut reasons = Vec::new();
    for _ in 0..2 {
        let letter = tokio::time::timeout(crate::support::PATIENCE, dead.next()).await.expect("a dead letter");
        let header = |name| letter.header(name).unwrap_or_default().to_owned();
        reasons.push((header("Sl-Dead-Id"), header("Sl-Dead-Reason")));
    }
    reasons.sort();
    let [nonsense, refused] = reasons.as_slice() else { panic!("{reasons:?}") };
    assert!(nonsense.0 == "nonsense" && nonsense.1.contains("not OTLP metrics"), "{nonsense:?}");
    assert!(refused.0 == "refused" && refused.1.contains("400: cannot take that"), "{refused:?}");
    observer.wait_for_acknowledged(11).await;
    // What only a newer version knows waits for it.
    let account = observer.account().await;
    assert_eq!((account.stored, account.dead, account.in_flight), (9, 2, 1));
    assert_eq!(observer.stored("poison").await, [0.0; 0]);
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_store_costs_no_data() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    front.writes(Writes::AllRefused);
    let writer = observer.writer(&front.url()).await;
    for n in 0..5_u32 {
        observer.publish(&format!("m{n}"), &observer.envelope("count", f64::from(n), 100 - u64::from(n))).await;
    }
    let reason = wait_for_missing(&writer, "remote-write").await;
    assert!(reason.contains("SIGHTLINE_METRICS_URL") && reason.contains("this is no store"), "{reason}");
    assert_eq!(observer.account().await.dead, 0);
    front.writes(Writes::Pass);
    observer.wait_for("count", &[0.0, 1.0, 2.0, 3.0, 4.0]).await;
    observer.wait_for_acknowledged(5).await;
    assert_eq!(observer.account().await.dead, 0);
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_cannot_be_written_hold_nothing_up() {
    let observer = Observer::start().await;
    let writer = observer.writer(&testkit::metrics_url()).await;
    wait_until_ready(&writer).await;
    let settings = observer.bus.settings();
    let client = async_nats::connect(settings.nats_url.reveal()).await.unwrap();
    let dead = Stream::Dead.name(&settings.namespace);
    async_nats::jetstream::new(client).delete_stream(dead).await.unwrap();
    // Each is tried for three seconds.
    for n in 0..40_u32 {
        observer.publish(&format!("nonsense-{n}"), &observer.envelope_of(vec![0x0a, 0x7f])).await;
    }
    observer.publish("good", &observer.envelope("good", 1.0, 10)).await;
    observer.wait_for("good", &[1.0]).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_something_in_between_finds_too_large_is_made_smaller() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    front.writes(Writes::AtMost(40_000));
    let points = (0..10_000_u64).map(|n| NumberDataPoint {
        time_unix_nano: u64::try_from(now().as_nanos()).unwrap() - n * 1_000_000,
        attributes: vec![attribute("n", &model::digest(&[&n.to_string()]))],
        value: Some(number_data_point::Value::AsDouble(1.0)),
        ..Default::default()
    });
    let data = Some(metric::Data::Gauge(Gauge { data_points: points.collect() }));
    let body = request_of(vec![Metric { name: "many".to_owned(), data, ..Default::default() }]);
    observer.publish("many", &observer.envelope_of(body)).await;
    let writer = observer.writer(&front.url()).await;
    observer.wait_for_acknowledged(1).await;
    observer.wait_for("many", &[1.0; 10_000]).await;
    assert_eq!(observer.account().await.dead, 0);
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_its_readers_is_put_aside_and_the_rest_is_stored() {
    let observer = Observer::start().await;
    let deadly = observer.envelope("deadly", 1.0, 20);
    observer.publish("deadly", &deadly).await;
    observer.publish("good", &observer.envelope("good", 1.0, 10)).await;
    // Readers that take it and are not heard of again.
    let mut lost = 0;
    let mut deliveries = observer.bus.consume(Stream::Metrics(0), "metric-writer", bus::Options::default());
    while lost < 2 {
        let delivery = tokio::time::timeout(PATIENCE, deliveries.next()).await.expect("a delivery");
        if delivery.id() == "deadly" && delivery.is_suspect() {
            let trial = bus::Trial::begin("metric-writer", std::slice::from_ref(&delivery)).await;
            lost += u32::from(trial.is_some());
        }
        delivery.nak(Duration::ZERO).await;
    }
    deliveries.close().await;
    let front = Front::start().await;
    let writer = observer.writer(&front.url()).await;
    observer.wait_long_for_acknowledged(2, REDELIVERY).await;
    // Once stored, and once given again to a store that nobody had seen before.
    testkit::eventually("what is good being written again", PATIENCE, async || match front.writes_with("good") {
        0..2 => Err("not yet"),
        _ => Ok(()),
    })
    .await;
    observer.wait_for("good", &[1.0]).await;
    assert_eq!(front.writes_with("deadly"), 0);
    let account = observer.account().await;
    assert_eq!((account.stored, account.dead, account.in_flight), (1, 1, 0));
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_again_and_again_is_written_alone() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    // It has seen to the store, so that each envelope is written once.
    let writer = observer.writer(&front.url()).await;
    wait_until_ready(&writer).await;
    writer.stop().await;
    observer.publish("suspect", &observer.envelope("suspect", 1.0, 20)).await;
    let mut deliveries = observer.bus.consume(Stream::Metrics(0), "metric-writer", bus::Options::default());
    for _ in 0..3 {
        let delivery = tokio::time::timeout(PATIENCE, deliveries.next()).await.expect("a delivery");
        delivery.nak(Duration::ZERO).await;
    }
    deliveries.close().await;
    for n in 0..20_u32 {
        observer.publish(&format!("m{n}"), &observer.envelope("count", f64::from(n), 100 - u64::from(n))).await;
    }
    let writer = observer.writer(&front.url()).await;
    observer.wait_long_for_acknowledged(21, REDELIVERY).await;
    observer.wait_for("suspect", &[1.0]).await;
    assert_eq!((front.writes_with("suspect"), front.writes_with_both("suspect", "count")), (1, 0));
    writer.stop().await;
    observer.stop().await;
}
