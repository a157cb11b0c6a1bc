//! Reading with acknowledgements.

use std::time::Duration;

use bus::{Options, Stream, Subject};
use futures::{FutureExt as _, StreamExt as _};

use crate::support::{PATIENCE, connect, connect_to, name, next, operator, send, text};

async fn in_flight(bus: &bus::Bus, stream: Stream) -> u64 {
    let accounts = bus.account().await.unwrap();
    accounts.into_iter().find(|account| account.stream == name(bus, stream)).unwrap().in_flight
}

#[tokio::test]
async fn what_is_acknowledged_does_not_come_again() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Logs(0), ["a", "b", "c"]).await;
    let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options::default());
    let mut all = Vec::new();
    for expected in ["a", "b", "c"] {
        let delivery = next(&mut deliveries).await;
        assert_eq!(text(&delivery), expected);
        all.push(delivery);
    }
    assert_eq!(in_flight(&bus, Stream::Logs(0)).await, 3);
    bus::ack_all(&all).await;
    testkit::eventually("acknowledging", PATIENCE, async || match in_flight(&bus, Stream::Logs(0)).await {
        0 => Ok(()),
        left => Err(format!("{left} in flight")),
    })
    .await;
}

#[tokio::test]
async fn what_is_given_back_comes_again_after_its_delay() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Transitions, ["a"]).await;
    let mut deliveries = bus.consume(Stream::Transitions, "alert-service", Options::default());
    let first = next(&mut deliveries).await;
    let begun = std::time::Instant::now();
    first.nak(Duration::from_millis(300)).await;
    let again = next(&mut deliveries).await;
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    assert_eq!((text(&again).as_str(), again.deliveries(), again.redelivered()), ("a", 2, true));
}

#[tokio::test]
async fn what_was_pulled_and_not_used_goes_to_another_replica_at_once() {
    let (bus, _process) = connect().await;
    let (other, _other_process) = connect_to(bus.settings()).await;
    send(&bus, Subject::Logs(0), ["a", "b", "c"]).await;
    let mut first = bus.consume(Stream::Logs(0), "log-writer", Options::default());
    next(&mut first).await.ack().await;
    first.close().await;
    let mut second = other.consume(Stream::Logs(0), "log-writer", Options::default());
    let mut rest = [text(&next(&mut second).await), text(&next(&mut second).await)];
    rest.sort();
    assert_eq!(rest, ["b", "c"]);
}

#[tokio::test]
async fn a_dead_letter_keeps_the_message_and_the_reason() {
    let (bus, _process) = connect().await;
    let poison = bus::Outgoing::new("poison", "?").header("Sl-Schema", "unheard.of");
    bus.publish(Subject::Logs(1), poison).await.unwrap();
    let mut deliveries = bus.consume(Stream::Logs(1), "log-writer", Options::default());
    next(&mut deliveries).await.dead("log-writer", "unknown\nschema").await.unwrap();

    let mut dead = bus.follow(Stream::Dead, bus::From::Sequence(1)).await;
    let letter = crate::support::next_followed(&mut dead).await;
    assert_eq!(letter.subject(), Subject::Dead("log-writer").name(&bus.settings().namespace));
    assert_eq!(letter.header("Sl-Dead-Reason"), Some("unknown schema"));
    assert_eq!(letter.header("Sl-Dead-Stream"), Some(name(&bus, Stream::Logs(1)).as_str()));
    assert_eq!(letter.header("Sl-Dead-Sequence"), Some("1"));
    assert_eq!(letter.header("Sl-Dead-Id"), Some("poison"));
    assert_eq!((letter.header("Sl-Schema"), letter.payload().as_ref()), (Some("unheard.of"), b"?".as_slice()));
}

#[tokio::test]
async fn a_consumer_that_somebody_deleted_is_made_again() {
    let (bus, _process) = connect().await;
    let mut deliveries = bus.consume(Stream::Metrics(0), "metric-writer", Options::default());
    send(&bus, Subject::Metrics(0), ["a"]).await;
    next(&mut deliveries).await.ack().await;
    let stream = operator(bus.settings()).await.get_stream(name(&bus, Stream::Metrics(0))).await.unwrap();
    stream.delete_consumer("metric-writer").await.unwrap();
    send(&bus, Subject::Metrics(0), ["b"]).await;
    // The new consumer knows of no acknowledgement: it begins with the oldest message, and stores drop what they have.
    assert_eq!(text(&next(&mut deliveries).await), "a");
    assert_eq!(text(&next(&mut deliveries).await), "b");
}

#[tokio::test]
async fn a_stream_that_somebody_deleted_is_made_again() {
    let (bus, _process) = connect().await;
    let mut deliveries = bus.consume(Stream::Notifications, "dispatcher", Options::default());
    send(&bus, Subject::Notifications, ["a"]).await;
    next(&mut deliveries).await.ack().await;
    operator(bus.settings()).await.delete_stream(name(&bus, Stream::Notifications)).await.unwrap();
    let (_, delivery) = tokio::join!(send(&bus, Subject::Notifications, ["b"]), next(&mut deliveries));
    assert_eq!(text(&delivery), "b");
}

#[tokio::test]
async fn what_only_a_newer_version_knows_waits_and_nobody_is_unready_for_it() {
    let (bus, process) = connect().await;
    let unknown = bus::Outgoing::new("a", "?").header("Sl-Schema", "otlp.logs.v9");
    bus.publish(Subject::Logs(0), unknown).await.unwrap();
    let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options::default());
    let delivery = next(&mut deliveries).await;
    let reason = bus::Envelope::decode(&delivery).unwrap_err();
    assert_eq!(bus::Envelope::unknown(&delivery).as_ref(), Some(&reason));
    assert!(reason.is_unknown() && !delivery.put_off("log-writer", &reason.to_string()).await);
    assert!(process.missing().is_empty(), "{:?}", process.missing());
    assert_eq!(in_flight(&bus, Stream::Logs(0)).await, 1);
}

#[tokio::test]
async fn a_consumer_is_made_only_when_its_stream_has_answered() {
    // Of a stream that somebody is still making, a server before 2.10 makes a consumer that never sends anything.
    let settings = testkit::namespace();
    let client = async_nats::connect(settings.nats_url.reveal()).await.unwrap();
    let mut asked = client.subscribe(format!("{}.logs.00", settings.namespace)).await.unwrap();
    client.flush().await.unwrap();
    let (bus, _process) = connect_to(&settings).await;
    let question = tokio::time::timeout(PATIENCE, asked.next()).await.unwrap().unwrap();
    assert!(question.headers.is_some_and(|headers| headers.get("Nats-Expected-Stream").is_some()));
    // Nothing stays of the question, and a consumer that is there is not asked for.
    let account = bus.account().await.unwrap();
    assert_eq!(account.iter().map(|account| account.received).sum::<u64>(), 0);
    let (_again, _) = connect_to(&settings).await;
    assert!(asked.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_reader_that_cannot_read_says_so_until_it_can() {
    let (bus, process) = connect().await;
    let context = operator(bus.settings()).await;
    let stream = context.get_stream(name(&bus, Stream::Logs(0))).await.unwrap();
    stream.delete_consumer("log-writer").await.unwrap();
    let pushed = async_nats::jetstream::consumer::push::Config {
        durable_name: Some("log-writer".to_owned()),
        deliver_subject: "elsewhere".to_owned(),
        ..Default::default()
    };
    stream.create_consumer(pushed).await.unwrap();
    let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options::default());
    let said = async {
        testkit::eventually("being said", PATIENCE, async || {
            let missing = process.missing();
            let said = missing.values().any(|reason| reason.contains("log-writer cannot read LOGS_00"));
            if said { Ok(()) } else { Err(format!("{missing:?}")) }
        })
        .await;
    };
    tokio::select! {
        _ = deliveries.next() => panic!("a message came"),
        () = said => {}
    }
    stream.delete_consumer("log-writer").await.unwrap();
    send(&bus, Subject::Logs(0), ["a"]).await;
    next(&mut deliveries).await.ack().await;
    assert!(process.missing().is_empty());
}
