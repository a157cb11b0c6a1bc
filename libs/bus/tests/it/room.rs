//! How full streams are, and what makes room: never what nobody has handled.

use std::time::Duration;

use bus::{Bus, Delivery, Options, Outgoing, PublishError, Stream, Subject};
use lifecycle::Process;

use crate::support::{LONG, PATIENCE, connect, connect_to, name, next, operator};

fn message(n: u32) -> Outgoing {
    Outgoing::new(format!("{n}"), vec![b'x'; 500_000])
}

async fn first_sequence(bus: &Bus, stream: Stream) -> u64 {
    let accounts = bus.account().await.unwrap();
    accounts.into_iter().find(|account| account.stream == name(bus, stream)).unwrap().first_sequence
}

#[tokio::test]
async fn a_backlog_is_refused_before_anything_is_evicted_and_taken_again_when_it_is_stored() {
    let (bus, _process) = connect().await;
    // Small ones that are stored, then large ones that are not: what an average size says is far from the truth.
    let mut deliveries = bus.consume(Stream::Metrics(0), "metric-writer", Options::default());
    for n in 0..300 {
        bus.publish(Subject::Metrics(0), Outgoing::new(format!("small {n}"), "small")).await.unwrap();
    }
    for _ in 0..300 {
        next(&mut deliveries).await.ack().await;
    }
    let mut published = 0;
    while !bus.backlog(Stream::Metrics(0)).await.unwrap().must_refuse() {
        bus.publish(Subject::Metrics(0), message(published)).await.unwrap();
        published += 1;
    }
    assert!((22..=24).contains(&published), "70% of 16 MiB are 23 messages: {published}");
    assert!(first_sequence(&bus, Stream::Metrics(0)).await <= 301, "nothing that is not stored was evicted");
    for _ in 0..published {
        next(&mut deliveries).await.ack().await;
    }
    testkit::eventually("room is made", PATIENCE, async || {
        let backlog = bus.backlog(Stream::Metrics(0)).await.unwrap();
        if backlog.must_refuse() { Err(format!("{backlog:?}")) } else { Ok(()) }
    })
    .await;
    assert!(first_sequence(&bus, Stream::Metrics(0)).await > 301, "what is stored made room");
}

#[tokio::test]
async fn publishers_to_a_full_stream_wait_until_its_reader_has_worked_it_off() {
    let settings = bus::Settings { stream_max_bytes: 2 << 20, ..testkit::namespace() };
    let (bus, process) = connect_to(&settings).await;
    for n in 0..4 {
        bus.publish(Subject::Transitions, message(n)).await.unwrap();
    }
    let refused = bus.publish(Subject::Transitions, message(4).within(Duration::from_millis(500))).await;
    assert!(matches!(refused, Err(PublishError::Unavailable(_) | PublishError::Unknown)), "{refused:?}");
    let missing = process.missing();
    assert!(missing["nats"].contains("TRANSITIONS is full; alert-service"), "{missing:?}");
    let work = async {
        let mut deliveries = bus.consume(Stream::Transitions, "alert-service", Options::default());
        let mut ids = Vec::new();
        while ids.len() < 6 {
            let delivery = next(&mut deliveries).await;
            ids.push(delivery.id().to_owned());
            delivery.ack().await;
        }
        ids
    };
    let publish = async {
        for n in 4..6 {
            bus.publish(Subject::Transitions, message(n).within(PATIENCE)).await.unwrap();
        }
    };
    let (ids, ()) = tokio::join!(work, publish);
    assert_eq!(ids, ["0", "1", "2", "3", "4", "5"], "nothing was evicted");
    assert!(process.missing().is_empty(), "{:?}", process.missing());
}

#[tokio::test]
async fn when_no_dead_letter_can_be_written_the_reader_goes_on_and_the_message_stays() {
    let settings = bus::Settings { dead_max_bytes: 1 << 20, ..testkit::namespace() };
    let (bus, process) = connect_to(&settings).await;
    for n in 0..4 {
        bus.publish(Subject::Logs(0), message(n)).await.unwrap();
    }
    let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options::default());
    let mut held: Vec<Delivery> = Vec::new();
    for _ in 0..4 {
        held.push(next(&mut deliveries).await);
    }
    assert!(held[0].bury("log-writer", "poison").await && held[1].bury("log-writer", "poison").await);
    // At once, and not after the seconds that a broker that is away would be given.
    let bury = tokio::time::timeout(Duration::from_secs(2), held[2].bury("log-writer", "poison"));
    assert!(!bury.await.unwrap());
    assert!(process.missing().is_empty(), "everything else goes on: {:?}", process.missing());
    held[3].ack().await;
    testkit::eventually("the account", PATIENCE, async || {
        let accounts = bus.account().await.unwrap();
        let logs = accounts.into_iter().find(|account| account.stream == name(&bus, Stream::Logs(0))).unwrap();
        if (logs.dead, logs.stored, logs.in_flight) == (2, 1, 1) { Ok(()) } else { Err(format!("{logs:?}")) }
    })
    .await;
    let dead = operator(bus.settings()).await.get_stream(name(&bus, Stream::Dead)).await.unwrap();
    dead.purge().await.unwrap();
    assert!(held[2].bury("log-writer", "poison").await);
}

#[tokio::test]
async fn a_message_whose_dead_letter_the_broker_refuses_comes_again() {
    let (bus, _process) = connect_to(&testkit::namespace()).await;
    bus.publish(Subject::Logs(0), message(0)).await.unwrap();
    let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options::default());
    let held = next(&mut deliveries).await;
    let operator = operator(bus.settings()).await;
    let mut dead = operator.get_stream(name(&bus, Stream::Dead)).await.unwrap().cached_info().config.clone();
    dead.max_message_size = 1;
    operator.update_stream(&dead).await.unwrap();
    assert!(!held.bury("log-writer", "poison").await);
    dead.max_message_size = -1;
    operator.update_stream(&dead).await.unwrap();
    let again = next(&mut deliveries).await;
    assert_eq!(again.stream_sequence(), held.stream_sequence());
    assert!(again.bury("log-writer", "poison").await);
}

#[tokio::test]
async fn who_found_a_stream_full_and_never_publishes_again_is_ready_when_there_is_room() {
    let settings = bus::Settings { stream_max_bytes: 2 << 20, ..testkit::namespace() };
    let process = Process::for_test();
    let bus = Bus::open(&process, &settings).await.unwrap();
    for n in 0..4 {
        bus.publish(Subject::Transitions, message(n)).await.unwrap();
    }
    bus.publish(Subject::Transitions, message(4).within(Duration::from_millis(500))).await.unwrap_err();
    assert!(process.missing()["broker"].contains("TRANSITIONS is full"), "{:?}", process.missing());
    operator(&settings).await.get_stream(name(&bus, Stream::Transitions)).await.unwrap().purge().await.unwrap();
    testkit::until_ready(&process, LONG).await;
}

/// Publishes as gateways do.
async fn publish_within_room(bus: &Bus, messages: u32) {
    for n in 0..messages {
        while bus.backlog(Stream::Logs(0)).await.unwrap().must_refuse() {
            tokio::task::yield_now().await;
        }
        bus.publish(Subject::Logs(0), Outgoing::new(format!("{n}"), vec![b'x'; 50_000])).await.unwrap();
    }
}

async fn logs(bus: &Bus) -> bus::Account {
    let accounts = bus.account().await.unwrap();
    accounts.into_iter().find(|account| account.stream == name(bus, Stream::Logs(0))).unwrap()
}

/// 40 MB through a stream of 4 MiB, whose first message is `answered` so whenever it comes.
async fn passes_by(answered: impl AsyncFn(&Delivery)) {
    let settings = bus::Settings { stream_max_bytes: 4 << 20, dead_max_bytes: 1 << 20, ..testkit::namespace() };
    let (bus, _process) = connect_to(&settings).await;
    for n in 0..2 {
        let letter = Outgoing::new(format!("letter {n}"), vec![b'x'; 500_000]);
        bus.publish(Subject::Dead("log-writer"), letter).await.unwrap();
    }
    let first = Outgoing::new("first", vec![b'x'; 50_000]).header("Sl-Schema", "otlp.logs.v9");
    bus.publish(Subject::Logs(0), first).await.unwrap();
    let read = async {
        let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options::default());
        let (mut seen, mut has_moved) = (std::collections::BTreeSet::new(), false);
        while seen.len() < 800 || !has_moved {
            for delivery in deliveries.several(20).await {
                if delivery.id() == "first" {
                    has_moved |= delivery.has_waited();
                    answered(&delivery).await;
                } else {
                    seen.insert(delivery.id().to_owned());
                    delivery.ack().await;
                }
            }
        }
        deliveries.close().await;
    };
    tokio::time::timeout(LONG * 2, async { tokio::join!(read, publish_within_room(&bus, 800)) })
        .await
        .expect("the stream is held up");
    testkit::eventually("the account", PATIENCE, async || {
        let logs = logs(&bus).await;
        let is_right = logs.stored == 800 && logs.passed > 0 && (logs.in_flight, logs.dead, logs.lost) == (1, 0, 0);
        let adds_up = logs.received == logs.stored + logs.passed + logs.in_flight && logs.unexplained == 0;
        if is_right && adds_up { Ok(()) } else { Err(format!("{logs:?}")) }
    })
    .await;
    // It is the same message, and waits since then.
    let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options::default());
    let copy = tokio::time::timeout(LONG * 2, deliveries.next()).await.unwrap();
    assert_eq!((copy.id(), copy.header("Sl-Deferred-Sequence")), ("first", Some("1")));
    assert_eq!((copy.header("Sl-Schema"), copy.payload().len()), (Some("otlp.logs.v9"), 50_000));
    let since: u64 = copy.header("Sl-Deferred-Since").unwrap().parse().unwrap();
    assert!(since < copy.published() && copy.age() > Duration::from_nanos(copy.published() - since));
}

#[tokio::test]
async fn what_waits_for_a_newer_version_holds_up_nobody() {
    Box::pin(passes_by(async |delivery| assert!(!delivery.put_off("log-writer", "unknown").await))).await;
}

#[tokio::test]
async fn what_finds_no_room_among_the_dead_letters_holds_up_nobody_and_stays_condemned() {
    Box::pin(passes_by(async |delivery| {
        assert!(!delivery.bury("log-writer", "poison").await);
        if delivery.has_waited() {
            assert!(delivery.is_suspect(), "nobody looks inside again");
        }
    }))
    .await;
}

#[tokio::test]
async fn what_waits_among_many_others_is_lost_in_no_round() {
    let settings = bus::Settings { stream_max_bytes: 4 << 20, ..testkit::namespace() };
    let (bus, _process) = connect_to(&settings).await;
    for n in 0..12 {
        let waits = Outgoing::new(format!("waits {n}"), vec![b'x'; 20_000]);
        bus.publish(Subject::Logs(0), waits.header("Sl-Schema", "otlp.logs.v9")).await.unwrap();
    }
    // Two replicas of this release, then one of the next.
    let read = async |is_newer: bool, wanted: usize, seen: &std::sync::Mutex<std::collections::BTreeSet<String>>| {
        let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options::default());
        while seen.lock().unwrap().len() < wanted {
            let Ok(several) = tokio::time::timeout(Duration::from_millis(200), deliveries.several(20)).await else {
                continue;
            };
            for delivery in several {
                if delivery.header("Sl-Schema").is_some() && !is_newer {
                    assert!(!delivery.put_off("log-writer", "unknown").await);
                } else {
                    seen.lock().unwrap().insert(delivery.id().to_owned());
                    delivery.ack().await;
                }
            }
        }
        deliveries.close().await;
    };
    let seen = std::sync::Mutex::default();
    let work = async {
        tokio::join!(read(false, 1_500, &seen), read(false, 1_500, &seen), publish_within_room(&bus, 1_500));
        read(true, 1_512, &seen).await;
    };
    Box::pin(tokio::time::timeout(LONG * 3, work))
        .await
        .unwrap_or_else(|_| panic!("lost of {}", seen.lock().unwrap().len()));
    testkit::eventually("the account", PATIENCE, async || {
        let logs = logs(&bus).await;
        let adds_up = logs.received == logs.stored + logs.passed && (logs.stored, logs.dead) == (1_512, 0);
        let is_right = (logs.in_flight, logs.lost, logs.unexplained) == (0, 0, 0);
        if adds_up && is_right && logs.passed >= 24 { Ok(()) } else { Err(format!("{logs:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_worked_off_takes_many_times_what_it_can_hold() {
    let settings = bus::Settings { stream_max_bytes: 4 << 20, ..testkit::namespace() };
    let (bus, _process) = connect_to(&settings).await;
    let read = async {
        let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options::default());
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 800 {
            let several = deliveries.several(20).await;
            seen.extend(several.iter().map(|delivery| delivery.id().to_owned()));
            bus::ack_all(&several).await;
        }
    };
    let publish = futures::future::join_all((0..800).map(async |n| {
        let message = Outgoing::new(format!("{n}"), vec![b'x'; 50_000]).within(PATIENCE);
        bus.publish(Subject::Logs(0), message).await.unwrap();
    }));
    tokio::join!(read, publish);
    let accounts = bus.account().await.unwrap();
    let logs = accounts.into_iter().find(|account| account.stream == name(&bus, Stream::Logs(0))).unwrap();
    assert_eq!((logs.received, logs.stored, logs.lost), (800, 800, 0));
}

#[tokio::test]
async fn what_is_held_while_room_is_made_comes_again() {
    let settings = bus::Settings { stream_max_bytes: 4 << 20, ..testkit::namespace() };
    let (bus, _process) = connect_to(&settings).await;
    let mut deliveries = bus.consume(Stream::Transitions, "alert-service", Options::default());
    for n in 0..6 {
        bus.publish(Subject::Transitions, message(n)).await.unwrap();
    }
    let mut held = Vec::new();
    for n in 0..6 {
        let delivery = next(&mut deliveries).await;
        if n < 3 {
            delivery.ack().await;
        } else {
            held.push(delivery);
        }
    }
    held.remove(0).nak(Duration::from_secs(1)).await;
    testkit::eventually("room is made", PATIENCE, async || {
        bus.backlog(Stream::Transitions).await.unwrap();
        let first = first_sequence(&bus, Stream::Transitions).await;
        if first > 1 { Ok(()) } else { Err(format!("{first}")) }
    })
    .await;
    drop(held);
    let mut again = std::collections::BTreeSet::new();
    while again.len() < 3 {
        let delivery = tokio::time::timeout(LONG, deliveries.next()).await.expect("what is held comes again");
        again.insert(delivery.id().to_owned());
        delivery.ack().await;
    }
}
