//! Received = stored + passed over + dead + in flight + lost, each counted for itself.

use std::time::Duration;

use bus::{Account, Bus, Deliveries, Options, Stream, Subject};
use lifecycle::Process;

use crate::support::{PATIENCE, connect, connect_to, name, next, operator, send};

const STREAM: Stream = Stream::Logs(0);

fn consume(bus: &Bus) -> Deliveries {
    bus.consume(STREAM, "log-writer", Options::default())
}

async fn account(bus: &Bus) -> Account {
    let accounts = bus.account().await.unwrap();
    accounts.into_iter().find(|account| account.stream == name(bus, STREAM)).unwrap()
}

/// Waits until the account is as `wanted`; it must add up at every moment.
async fn settles(bus: &Bus, wanted: impl Fn(&Account) -> bool) -> Account {
    testkit::eventually("settling", PATIENCE, async || {
        let account = account(bus).await;
        let sum = account.uncounted
            + account.stored
            + account.passed
            + account.dead
            + account.in_flight
            + account.lost
            + account.unexplained;
        assert_eq!(account.received, sum, "{account:?}");
        if wanted(&account) { Ok(account) } else { Err(format!("{account:?}")) }
    })
    .await
}

#[tokio::test]
async fn the_account_of_a_stream_adds_up() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Logs(0), (0..9).map(|n| n.to_string())).await;
    bus.tick(Subject::Logs(0), 1).await.unwrap();
    let mut deliveries = bus.consume(STREAM, "log-writer", Options { max_messages: 6 });
    for _ in 0..4 {
        next(&mut deliveries).await.ack().await;
    }
    next(&mut deliveries).await.dead("log-writer", "poison").await.unwrap();
    let account = settles(&bus, |account| account.stored == 4).await;
    assert_eq!((account.received, account.dead, account.in_flight, account.lost), (10, 1, 5, 0));
    for _ in 0..4 {
        next(&mut deliveries).await.ack().await;
    }
    let tick = next(&mut deliveries).await;
    assert_eq!(tick.tick(), Some(1));
    tick.pass().await;
    let account = settles(&bus, |account| account.in_flight == 0 && account.ack_pending == 0).await;
    assert_eq!((account.stored, account.stored_items, account.passed, account.unexplained), (8, 8, 1, 0));
}

#[tokio::test]
async fn what_was_purged_before_it_was_stored_is_lost() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Logs(0), (0..10).map(|n| n.to_string())).await;
    let mut deliveries = consume(&bus);
    for _ in 0..3 {
        next(&mut deliveries).await.ack().await;
    }
    operator(bus.settings()).await.get_stream(name(&bus, STREAM)).await.unwrap().purge().await.unwrap();
    let account = settles(&bus, |account| account.lost == 7).await;
    assert_eq!((account.received, account.stored, account.in_flight), (10, 3, 0));
    send(&bus, Subject::Logs(0), ["after"]).await;
    let account = settles(&bus, |account| account.received == 11).await;
    assert_eq!((account.stored, account.in_flight, account.lost), (3, 1, 7));
}

#[tokio::test]
async fn what_was_evicted_before_it_was_stored_is_lost() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Logs(0), (0..10).map(|n| n.to_string())).await;
    let context = operator(bus.settings()).await;
    let mut config = context.get_stream(name(&bus, STREAM)).await.unwrap().cached_info().config.clone();
    config.max_messages = 4;
    config.discard = async_nats::jetstream::stream::DiscardPolicy::Old;
    context.update_stream(config).await.unwrap();
    let account = settles(&bus, |account| account.lost > 0).await;
    assert_eq!((account.lost, account.in_flight, account.stored), (6, 4, 0));
}

#[tokio::test]
async fn what_was_deleted_out_of_the_middle_is_lost() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Logs(0), ["a", "b", "c"]).await;
    operator(bus.settings()).await.get_stream(name(&bus, STREAM)).await.unwrap().delete_message(2).await.unwrap();
    let mut deliveries = consume(&bus);
    for _ in 0..2 {
        next(&mut deliveries).await.ack().await;
    }
    let account = settles(&bus, |account| account.stored == 2 && account.ack_pending == 0).await;
    // Nobody answered for it, and whether it was evicted cannot be seen any more.
    assert_eq!((account.lost + account.unexplained, account.in_flight), (1, 0), "{account:?}");
}

#[tokio::test]
async fn an_acknowledgement_without_a_count_does_not_pass_for_stored() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Logs(0), ["a", "b"]).await;
    consume(&bus).close().await;
    let stream = operator(bus.settings()).await.get_stream(name(&bus, STREAM)).await.unwrap();
    let mut deliveries = consume(&bus);
    next(&mut deliveries).await.ack().await;
    deliveries.close().await;
    let consumer: async_nats::jetstream::consumer::PullConsumer = stream.get_consumer("log-writer").await.unwrap();
    let other = async || {
        use futures::StreamExt as _;
        let mut messages = consumer.fetch().max_messages(1).messages().await.unwrap();
        messages.next().await.ok_or("nothing yet")
    };
    testkit::eventually("the message is given back", PATIENCE, other).await.unwrap().ack().await.unwrap();
    let account = settles(&bus, |account| account.unexplained == 1).await;
    assert_eq!((account.stored, account.lost), (1, 0));
}

#[tokio::test]
async fn what_was_acknowledged_without_a_count_stays_unexplained_when_it_is_removed() {
    let (bus, _process) = connect().await;
    consume(&bus).close().await;
    send(&bus, Subject::Logs(0), ["z", "a", "b"]).await;
    let mut deliveries = consume(&bus);
    next(&mut deliveries).await.ack().await;
    deliveries.close().await;
    let context = operator(bus.settings()).await;
    let stream = context.get_stream(name(&bus, STREAM)).await.unwrap();
    let consumer: async_nats::jetstream::consumer::PullConsumer = stream.get_consumer("log-writer").await.unwrap();
    let taken = async || {
        use futures::StreamExt as _;
        let mut messages = consumer.fetch().max_messages(1).messages().await.unwrap();
        messages.next().await.ok_or("nothing yet")
    };
    testkit::eventually("a message", PATIENCE, taken).await.unwrap().ack().await.unwrap();
    settles(&bus, |account| account.unexplained == 1).await;
    // A service that watches what it reads.
    let process = lifecycle::Process::for_test();
    let watching = Bus::open(&process, bus.settings()).await.unwrap();
    let mut deliveries = consume(&watching);
    next(&mut deliveries).await.ack().await;
    let state = context.get_stream(name(&bus, Stream::State)).await.unwrap();
    let subject = format!("{}.state.counts.LOGS_00", bus.settings().namespace);
    testkit::eventually("it is written down", crate::support::LONG, async || {
        let counts = state.get_last_raw_message_by_subject(&subject).await.map_err(|error| error.to_string())?;
        let text = String::from_utf8(counts.payload.to_vec()).unwrap();
        if text.contains("\"unexplained\":1") { Ok(()) } else { Err(text) }
    })
    .await;
    stream.purge().await.unwrap();
    let account = settles(&bus, |account| account.first_sequence == 4).await;
    assert_eq!((account.stored, account.unexplained, account.lost), (2, 1, 0));
}

#[tokio::test]
async fn what_comes_again_after_it_was_counted_is_not_counted_again_by_whomever() {
    let (bus, _process) = connect().await;
    let (other, _other_process) = connect_to(bus.settings()).await;
    send(&bus, Subject::Transitions, ["a", "b", "c"]).await;
    let stream = |account: &Account| account.stream.ends_with("TRANSITIONS");
    let mut first = bus.consume(Stream::Transitions, "alert-service", Options::default());
    let held = [next(&mut first).await, next(&mut first).await];
    bus::ack_all(&held).await;
    first.close().await;
    // The broker forgets what it heard, as if the reader had been killed before it told.
    let transitions = operator(bus.settings()).await.get_stream(name(&bus, Stream::Transitions)).await.unwrap();
    transitions.delete_consumer("alert-service").await.unwrap();
    let mut second = other.consume(Stream::Transitions, "alert-service", Options::default());
    for expected in ["a", "b", "c"] {
        let delivery = next(&mut second).await;
        assert_eq!(crate::support::text(&delivery), expected);
        delivery.ack().await;
    }
    testkit::eventually("all is stored, once", PATIENCE, async || {
        let account = other.account().await.unwrap().into_iter().find(stream).unwrap();
        if (account.stored, account.in_flight) == (3, 0) { Ok(()) } else { Err(format!("{account:?}")) }
    })
    .await;
}

#[tokio::test]
async fn replicas_that_count_at_once_lose_no_count() {
    let (bus, _process) = connect().await;
    let (other, _other_process) = connect_to(bus.settings()).await;
    let publish = send(&bus, Subject::Logs(0), (0..300).map(|n| n.to_string()));
    let work = async |bus: &Bus| {
        let mut deliveries = bus.consume(STREAM, "log-writer", Options { max_messages: 10 });
        while let Ok(delivery) = tokio::time::timeout(std::time::Duration::from_secs(2), deliveries.next()).await {
            delivery.ack().await;
        }
    };
    let watch = async {
        // Publishing goes on meanwhile, and what is counted before it was looked at is not lost.
        while account(&bus).await.stored < 300 {
            let account = account(&bus).await;
            assert_eq!((account.lost, account.unexplained), (0, 0), "{account:?}");
        }
    };
    tokio::join!(publish, work(&bus), work(&other), watch);
    let account = settles(&bus, |account| account.ack_pending == 0).await;
    assert_eq!((account.stored, account.stored_items, account.in_flight), (300, 300, 0));
}

#[tokio::test]
async fn a_stream_that_was_made_again_is_counted_anew() {
    let (bus, _process) = connect().await;
    let mut deliveries = consume(&bus);
    send(&bus, Subject::Logs(0), ["a", "b"]).await;
    for _ in 0..2 {
        next(&mut deliveries).await.ack().await;
    }
    settles(&bus, |account| account.stored == 2).await;
    operator(bus.settings()).await.delete_stream(name(&bus, STREAM)).await.unwrap();
    let (_, delivery) = tokio::join!(send(&bus, Subject::Logs(0), ["c"]), next(&mut deliveries));
    delivery.ack().await;
    let account = settles(&bus, |account| account.stored == 1).await;
    assert_eq!((account.received, account.lost), (1, 0));
}

#[tokio::test]
async fn without_its_consumer_nothing_of_a_stream_is_stored() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Metrics(0), ["a", "b"]).await;
    let stream = operator(bus.settings()).await.get_stream(name(&bus, Stream::Metrics(0))).await.unwrap();
    stream.delete_consumer("metric-writer").await.unwrap();
    let accounts = bus.account().await.unwrap();
    let metrics = accounts.iter().find(|account| account.stream == name(&bus, Stream::Metrics(0))).unwrap();
    assert_eq!((metrics.stored, metrics.in_flight, metrics.lost), (0, 2, 0));
}

#[tokio::test]
async fn counts_that_cannot_be_read_are_said_and_acknowledge_nothing_of_their_stream() {
    let (bus, process) = connect().await;
    send(&bus, Subject::Logs(0), ["a"]).await;
    send(&bus, Subject::Logs(1), ["b"]).await;
    let context = operator(bus.settings()).await;
    let subject = format!("{}.state.counts.LOGS_00", bus.settings().namespace);
    let broken = context.publish(subject, "no count".into()).await.unwrap().await.unwrap();
    let mut deliveries = consume(&bus);
    let mut other = bus.consume(Stream::Logs(1), "log-writer", Options::default());
    bus::ack_all(&[next(&mut deliveries).await, next(&mut other).await]).await;
    let settled = async || {
        let other = bus.account().await.unwrap().into_iter().find(|account| account.stream.ends_with("LOGS_01"));
        if other.is_some_and(|account| account.stored == 1 && account.ack_pending == 0) {
            Ok(())
        } else {
            Err("not yet")
        }
    };
    let missing = process.missing();
    let reason = missing.values().next().expect("it is not said");
    assert!(reason.contains("nothing of LOGS_00 is acknowledged"), "{reason}");
    // Once somebody has removed it, all goes on.
    let state = context.get_stream(name(&bus, Stream::State)).await.unwrap();
    state.delete_message(broken.sequence).await.unwrap();
    next(&mut deliveries).await.ack().await;
    assert!(process.missing().is_empty());
    settles(&bus, |account| account.stored == 1).await;
    testkit::eventually("the other stream is acknowledged", PATIENCE, settled).await;
}

#[tokio::test]
async fn who_could_not_count_and_gets_no_message_again_is_ready_when_counts_can_be_read() {
    let settings = testkit::namespace();
    let process = Process::for_test();
    let bus = Bus::open(&process, &settings).await.unwrap();
    send(&bus, Subject::Logs(0), ["a"]).await;
    let context = operator(&settings).await;
    let subject = format!("{}.state.counts.LOGS_00", settings.namespace);
    let broken = context.publish(subject, "no count".into()).await.unwrap().await.unwrap();
    let mut deliveries = consume(&bus);
    next(&mut deliveries).await.ack().await;
    deliveries.close().await;
    assert!(process.missing()["broker"].contains("LOGS_00"), "{:?}", process.missing());
    let state = context.get_stream(name(&bus, Stream::State)).await.unwrap();
    state.delete_message(broken.sequence).await.unwrap();
    testkit::until_ready(&process, Duration::from_secs(40)).await;
    process.stop().await;
}
