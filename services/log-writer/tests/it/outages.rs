//! Two writers at once, and what is away from one of them or from both.

use std::time::Duration;

use bus::{Bus, Subject};
use lifecycle::Process;
use settings::Secret;
use testkit::{Gate, Program};

use crate::support::{PATIENCE, Running, each_once, envelope};

/// Longer than the broker waits for a killed writer's answer.
const LONG: Duration = Duration::from_secs(90);

/// The same database through a gate.
async fn through_gate(database: &store::Settings) -> (Gate, store::Settings) {
    let gate = Gate::before(database.database_url.reveal()).await;
    let through = store::Settings { database_url: Secret::from(gate.url().to_owned()), ..database.clone() };
    (gate, through)
}

/// Publishes `count` batches of two lines over both shards, each batch `times` times, and gives their lines.
async fn publish(bus: &Bus, count: u8, times: u8) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in 0..count {
        let both = [format!("{batch} one"), format!("{batch} two")];
        let texts: Vec<&str> = both.iter().map(String::as_str).collect();
        for time in 0..times {
            let message = envelope("default", batch, "web-1", &texts).encode(format!("{batch}-{time}")).unwrap();
            bus.publish(Subject::Logs(u16::from((batch + time) % 2)), message).await.unwrap();
        }
        lines.extend(both);
    }
    lines
}

#[tokio::test]
async fn two_writers_that_store_the_same_batches_at_once_store_each_once() {
    let one = Running::start().await;
    let two = one.beside(&one.database, &one.settings).await;
    let lines = publish(&one.bus, 200, 3).await;
    each_once(&one.database, &lines, LONG).await;
    testkit::eventually("everything is answered, by both", LONG, async || {
        let accounts = one.bus.account().await.unwrap();
        let logs: Vec<_> = accounts.iter().filter(|account| account.stream.contains("LOGS")).collect();
        let sum = |of: fn(&bus::Account) -> u64| logs.iter().map(|account| of(account)).sum::<u64>();
        let counts = [sum(|a| a.stored), sum(|a| a.in_flight), sum(|a| a.ack_pending), sum(|a| a.unexplained)];
        if counts == [600, 0, 0, 0] { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    two.leave().await;
    one.stop().await;
}

#[tokio::test]
async fn what_a_writer_without_postgres_holds_is_stored_by_the_other() {
    let database = testkit::database().await;
    let (gate, through) = through_gate(&database).await;
    let cut_off = store::Settings { database_transaction_timeout: Duration::from_secs(1), ..through };
    let settings = bus::Settings { hold_limit: Duration::from_secs(2), ..testkit::namespace() };
    let one = Running::with(cut_off, settings.clone(), |_| {}).await;
    // Silent, as after a failover that nobody was told of.
    gate.freeze();
    let lines = publish(&one.bus, 20, 1).await;
    testkit::until_missing(&one.process, "writing", PATIENCE).await;
    let two = one.beside(&database, &settings).await;
    each_once(&database, &lines, LONG).await;
    gate.open();
    testkit::until_ready(&one.process, PATIENCE).await;
    one.leave().await;
    two.stop().await;
}

#[tokio::test]
async fn while_postgres_is_away_for_longer_than_the_broker_waits_nothing_is_answered_and_nobody_else_is_asked() {
    let database = testkit::database().await;
    let (gate, through) = through_gate(&database).await;
    let running = Running::with(through, testkit::namespace(), |_| {}).await;
    gate.close();
    let lines = publish(&running.bus, 4, 1).await;
    testkit::until_missing(&running.process, "writing", PATIENCE).await;
    let context = async_nats::jetstream::new(async_nats::connect(running.settings.nats_url.reveal()).await.unwrap());
    let stream = context.get_stream(bus::Stream::Logs(0).name(&running.settings.namespace)).await.unwrap();
    // The wait of the writers' consumers, and a little.
    let over = tokio::time::Instant::now() + Duration::from_secs(33);
    while tokio::time::Instant::now() < over {
        let consumer = stream.consumer_info("log-writer").await.unwrap();
        assert_eq!((consumer.num_redelivered, consumer.ack_floor.stream_sequence), (0, 0));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(running.account().await.stored, 0);
    gate.open();
    each_once(&database, &lines, PATIENCE).await;
    running.settles().await;
    running.stop().await;
}

#[tokio::test]
async fn a_writer_that_is_killed_before_postgres_answered_loses_nothing() {
    let (database, settings) = (testkit::database().await, testkit::namespace());
    let (gate, through) = through_gate(&database).await;
    let observer = Process::for_test();
    let bus = Bus::connect(&settings, observer.ready("nats")).await.unwrap();
    let program = |database| Program::new("log-writer", env!("CARGO_BIN_EXE_log-writer"), database, &settings);
    let (behind_gate, beside) = (program(&through), program(&database));
    let running = behind_gate.start();
    // It is there when it stores.
    let mut lines = publish(&bus, 1, 1).await;
    each_once(&database, &lines, LONG).await;
    gate.freeze();
    for batch in 1..9 {
        let line = format!("{batch} held");
        bus.publish(Subject::Logs(0), envelope("default", batch, "web-1", &[&line]).encode(line.as_str()).unwrap())
            .await
            .unwrap();
        lines.push(line);
    }
    testkit::eventually("it has some of them", PATIENCE, async || {
        let accounts = bus.account().await.unwrap();
        let logs = accounts.iter().find(|account| account.stream.ends_with("LOGS_00")).unwrap();
        if logs.received > logs.pending + 1 { Ok(()) } else { Err(format!("{logs:?}")) }
    })
    .await;
    running.kill();
    let _beside = beside.start();
    each_once(&database, &lines, LONG).await;
    bus.delete_all_streams().await.unwrap();
    observer.stop().await;
}
