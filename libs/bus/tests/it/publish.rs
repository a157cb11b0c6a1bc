//! Publishing and what the broker does with it.

use std::time::Duration;

use bus::{Encoding, Envelope, Options, Outgoing, PublishError, Schema, Stream, Subject};
use bytes::Bytes;

use crate::support::{connect, name, next, operator, send};

#[tokio::test]
async fn an_envelope_arrives_as_it_was_sent() {
    let (bus, _process) = connect().await;
    let sent = Envelope {
        schema: Schema::OtlpMetrics,
        tenant: "default".to_owned(),
        items: 17,
        received_unix_nano: 1_790_230_470_084_404_000,
        encoding: Encoding::Lz4,
        body: Bytes::from("points ".repeat(1_000)),
    };
    bus.publish(Subject::Metrics(1), sent.encode("batch/0").unwrap()).await.unwrap();
    let mut deliveries = bus.consume(Stream::Metrics(1), "metric-writer", Options::default());
    let delivery = next(&mut deliveries).await;
    assert_eq!(Envelope::decode(&delivery).unwrap(), sent);
    assert_eq!((delivery.id(), delivery.stream_sequence(), delivery.redelivered()), ("batch/0", 1, false));
    assert!(delivery.payload().len() < sent.body.len() / 10, "it travels compressed");
}

#[tokio::test]
async fn a_repeated_id_is_one_message() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Events, ["a", "a", "b", "a"]).await;
    let events = bus.account().await.unwrap().into_iter().find(|a| a.stream == name(&bus, Stream::Events)).unwrap();
    assert_eq!(events.received, 2);
}

#[tokio::test]
async fn without_a_stream_it_is_known_that_nothing_was_taken() {
    let (bus, _process) = connect().await;
    operator(bus.settings()).await.delete_stream(name(&bus, Stream::Events)).await.unwrap();
    let lost = Outgoing::new("x", "x").within(Duration::from_millis(300));
    let error = bus.publish(Subject::Events, lost).await.unwrap_err();
    assert!(matches!(error, PublishError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_message_that_can_never_fit_is_refused_at_once() {
    let (bus, _process) = connect().await;
    let huge = Outgoing::new("x", vec![0; 2 << 20]).within(Duration::from_secs(60));
    let error = bus.publish(Subject::Events, huge).await.unwrap_err();
    assert!(matches!(error, PublishError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn many_publishers_share_the_window() {
    let (bus, _process) = connect().await;
    let all = (0..3_000).map(|n| bus.publish(Subject::Events, Outgoing::new(format!("{n}"), vec![b'x'; 1_000])));
    for outcome in futures::future::join_all(all).await {
        outcome.unwrap();
    }
    let events = bus.account().await.unwrap().into_iter().find(|a| a.stream == name(&bus, Stream::Events)).unwrap();
    assert_eq!(events.received, 3_000);
}
