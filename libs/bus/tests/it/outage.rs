//! The broker goes away and comes back.

use std::time::Duration;

use bus::{Bus, From, Options, Outgoing, PublishError, Stream, Subject};
use lifecycle::Process;

use crate::support::{Broker, PATIENCE, connect_to, next, next_followed, send, text};

#[tokio::test]
async fn a_service_that_starts_first_waits_and_says_what_for() {
    let mut broker = Broker::reserve();
    let process = Process::for_test();
    let (settings, ready) = (broker.settings(), process.ready("nats"));
    process.spawn("connect", async move {
        let _bus = Bus::connect(&settings, ready).await?;
        std::future::pending().await
    });
    testkit::eventually("saying why", PATIENCE, async || match process.missing().get("nats") {
        Some(reason) if reason.contains("cannot connect to NATS") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    broker.start();
    testkit::until_ready(&process, PATIENCE).await;
}

#[tokio::test]
async fn a_server_that_takes_no_large_messages_is_told() {
    let broker = Broker::with_users("max_payload: 65536\n");
    let (_bus, process) = connect_to(&broker.settings()).await;
    assert!(process.missing()["nats"].contains("max_payload to 1048576"), "{:?}", process.missing());
}

#[tokio::test]
async fn after_a_kill_nothing_acknowledged_is_missing_and_nobody_has_to_be_restarted() {
    let mut broker = Broker::started();
    let (bus, process) = connect_to(&broker.settings()).await;
    let mut follow = bus.follow(Stream::Metrics(0), From::New).await;
    let mut deliveries = bus.consume(Stream::Metrics(0), "metric-writer", Options::default());
    send(&bus, Subject::Metrics(0), ["a"]).await;
    assert_eq!(text(&next_followed(&mut follow).await), "a");
    next(&mut deliveries).await.ack().await;
    send(&bus, Subject::Metrics(0), ["b"]).await;

    broker.kill();
    testkit::until_missing(&process, "nats", PATIENCE).await;
    let refused = bus.publish(Subject::Metrics(0), Outgoing::new("x", "x").within(Duration::from_millis(200))).await;
    assert!(matches!(refused, Err(PublishError::Unavailable(_))), "{refused:?}");

    let publishing = send(&bus, Subject::Metrics(0), ["c"]);
    let restarting = async { broker.start() };
    tokio::join!(publishing, restarting);
    let back = std::time::Instant::now();
    assert_eq!([text(&next_followed(&mut follow).await), text(&next_followed(&mut follow).await)], ["b", "c"]);
    assert!(back.elapsed() < Duration::from_secs(4), "reading along took {:?} to go on", back.elapsed());
    let mut texts = Vec::new();
    while !["b", "c"].iter().all(|wanted| texts.iter().any(|text| text == wanted)) {
        texts.push(text(&next(&mut deliveries).await));
    }
    assert!(!texts.contains(&"x".to_owned()), "what was refused is nowhere: {texts:?}");
    assert!(process.missing().is_empty(), "{:?}", process.missing());
}
