//! The number of shards is a fact of the installation.

use bus::{Bus, Options, Stream, Subject};
use lifecycle::Process;

use crate::support::{PATIENCE, connect_to, next, send};

#[tokio::test]
async fn another_number_is_refused_with_the_reason() {
    let settings = testkit::namespace();
    let (_bus, _process) = connect_to(&settings).await;
    let process = Process::for_test();
    for shards in [1, 4] {
        let other = bus::Settings { shards, ..settings.clone() };
        let refused = Bus::connect(&other, process.ready("nats")).await.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(&format!("SIGHTLINE_SHARDS is {shards}")) && refused.contains("made with 2"));
    }
}

#[tokio::test]
async fn data_of_shards_that_there_are_no_more_is_told() {
    let settings = bus::Settings { shards: 4, ..testkit::namespace() };
    let (bus, _process) = connect_to(&settings).await;
    send(&bus, Subject::Logs(3), ["stranded"]).await;
    let state = crate::support::operator(&settings).await;
    state.delete_stream(crate::support::name(&bus, Stream::State)).await.unwrap();
    let process = Process::for_test();
    let fewer = Bus::open(&process, &bus::Settings { shards: 2, ..settings }).await.unwrap();
    testkit::eventually("it is told", PATIENCE, async || match process.missing().get("broker") {
        Some(reason) if reason.contains("LOGS_03") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(fewer.settings().shards, 2);
}

#[tokio::test]
async fn sixteen_shards_with_a_backlog_in_each_are_read_without_being_cut_off() {
    let settings = bus::Settings { shards: 16, ..testkit::namespace() };
    let (bus, process) = connect_to(&settings).await;
    let publish = async |shard: u16| {
        for n in 0..8 {
            let message = bus::Outgoing::new(format!("{n}"), vec![b'x'; 500_000]).within(PATIENCE);
            bus.publish(Subject::Logs(shard), message.clone()).await.unwrap();
            bus.publish(Subject::Processes(shard), message).await.unwrap();
        }
    };
    futures::future::join_all((0..16).map(publish)).await;
    let streams = (0..16).flat_map(|shard| [Stream::Logs(shard), Stream::Processes(shard)]);
    let mut readers: Vec<_> = streams.map(|stream| bus.consume(stream, "log-writer", Options::default())).collect();
    // All ask at once, and then the process is busy with something else.
    let first = futures::future::join_all(readers.iter_mut().map(next)).await;
    bus::ack_all(&first).await;
    let rest = futures::future::join_all(readers.iter_mut().map(async |reader| {
        for _ in 0..7 {
            let delivery = next(reader).await;
            assert!(!delivery.redelivered());
            delivery.ack().await;
        }
    }));
    rest.await;
    assert!(process.missing().is_empty(), "{:?}", process.missing());
    bus.delete_all_streams().await.unwrap();
}

#[tokio::test]
async fn services_that_start_at_once_make_the_streams_once() {
    let settings = testkit::namespace();
    let all = futures::future::join_all((0..6).map(|_| connect_to(&settings))).await;
    let (bus, _) = &all[0];
    assert_eq!(bus.account().await.unwrap().len(), 15);
    assert!(bus.durability().contains(&bus.server_version()), "{}", bus.durability());
}

#[tokio::test]
async fn a_stream_that_is_there_is_only_made_larger() {
    let settings = testkit::namespace();
    let (bus, _process) = connect_to(&settings).await;
    for (wanted, is) in [(32 << 20, 32 << 20), (16 << 20, 32 << 20)] {
        let (_other, _process) = connect_to(&bus::Settings { stream_max_bytes: wanted, ..settings.clone() }).await;
        assert_eq!(bus.backlog(Stream::Metrics(0)).await.unwrap().max_bytes, is);
    }
}
