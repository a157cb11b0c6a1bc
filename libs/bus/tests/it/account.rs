//! Received = handled + dead-lettered + in flight.

use bus::{Options, Stream, Subject};

use crate::support::{PATIENCE, connect, connect_to, name, next, operator, send};

#[tokio::test]
async fn the_account_of_a_stream_adds_up() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Logs(0), (0..10).map(|n| n.to_string())).await;
    let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options { max_messages: 6, ..Options::default() });
    for _ in 0..4 {
        next(&mut deliveries).await.ack().await;
    }
    next(&mut deliveries).await.dead("log-writer", "poison").await.unwrap();
    let account = testkit::eventually("settling", PATIENCE, async || {
        let accounts = bus.account().await.unwrap();
        let logs = accounts.into_iter().find(|account| account.stream == name(&bus, Stream::Logs(0))).unwrap();
        if logs.handled == 4 { Ok(logs) } else { Err(format!("{logs:?}")) }
    })
    .await;
    assert_eq!((account.received, account.handled, account.dead, account.in_flight), (10, 4, 1, 5));
    assert_eq!(account.in_flight, account.pending + account.ack_pending);
}

#[tokio::test]
async fn the_backlog_is_what_the_writer_has_not_acknowledged() {
    let (bus, _process) = connect().await;
    let message = |n: u32| bus::Outgoing::new(format!("{n}"), vec![b'x'; 500_000]);
    for n in 0..24 {
        bus.publish(Subject::Metrics(0), message(n)).await.unwrap();
    }
    let full = bus.backlog(Stream::Metrics(0)).await.unwrap();
    assert!(full.must_refuse() && full.messages == 24, "{full:?}");
    let mut deliveries = bus.consume(Stream::Metrics(0), "metric-writer", Options::default());
    for _ in 0..24 {
        next(&mut deliveries).await.ack().await;
    }
    testkit::eventually("draining", PATIENCE, async || {
        let backlog = bus.backlog(Stream::Metrics(0)).await.unwrap();
        if backlog.messages == 0 && !backlog.must_refuse() { Ok(()) } else { Err(format!("{backlog:?}")) }
    })
    .await;
}

#[tokio::test]
async fn without_the_writers_consumer_everything_counts_as_not_stored() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Metrics(0), ["a", "b"]).await;
    let stream = operator(bus.settings()).await.get_stream(name(&bus, Stream::Metrics(0))).await.unwrap();
    stream.delete_consumer("metric-writer").await.unwrap();
    assert_eq!(bus.backlog(Stream::Metrics(0)).await.unwrap().messages, 2);
}

#[tokio::test]
async fn services_that_start_at_once_make_the_streams_once() {
    let settings = testkit::namespace();
    let all = futures::future::join_all((0..6).map(|_| connect_to(&settings))).await;
    let (bus, _) = &all[0];
    assert_eq!(bus.account().await.unwrap().len(), 16);
    assert!(bus.durability().contains(&bus.server_version()), "{}", bus.durability());
}

#[tokio::test]
async fn another_size_changes_the_streams_that_are_there() {
    let settings = testkit::namespace();
    let (small, _process) = connect_to(&settings).await;
    let larger = bus::Settings { stream_max_bytes: 32 << 20, ..settings };
    let (large, _large_process) = connect_to(&larger).await;
    for bus in [&small, &large] {
        assert_eq!(bus.backlog(Stream::Metrics(0)).await.unwrap().max_bytes, 32 << 20);
    }
}
