//! What is delivered is stored once, whatever happens on the way.

use std::time::Duration;

use bus::{Bus, Options, Outgoing, Stream, Subject, Trial};
use lifecycle::Process;

use crate::support::{PATIENCE, Running, each_once, envelope};

#[tokio::test]
async fn a_line_is_found_after_it_was_published() {
    let running = Running::start().await;
    running.publish("a", 1, &["one", "two"]).await;
    running.finds(&["one", "two"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_comes_twice_is_stored_once() {
    let running = Running::start().await;
    running.publish("a", 1, &["one"]).await;
    running.publish("b", 1, &["one"]).await;
    running.publish("c", 2, &["two"]).await;
    running.settles().await;
    running.finds(&["one", "two"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_comes_again_after_a_restart_is_stored_once() {
    let running = Running::start().await;
    running.publish("a", 1, &["one"]).await;
    running.finds(&["one"]).await;
    let running = running.restart().await;
    running.publish("b", 1, &["one"]).await;
    running.settles().await;
    running.finds(&["one"]).await;
    running.stop().await;
}

#[tokio::test]
async fn without_the_batch_check_a_repeat_is_seen() {
    let running = Running::tuned(|config| config.batch_check = false).await;
    running.publish("a", 1, &["one"]).await;
    running.publish("b", 1, &["one"]).await;
    running.finds(&["one", "one"]).await;
    running.stop().await;
}

#[tokio::test]
async fn what_can_never_be_stored_becomes_a_dead_letter_and_its_neighbours_are_stored() {
    let running = Running::start().await;
    running.publish_raw(Outgoing::new("poison", "no envelope at all")).await;
    running.publish("a", 1, &["a\0b"]).await;
    running.finds(&["a\u{fffd}b"]).await;
    let logs = running.settles().await;
    assert_eq!((logs.received, logs.stored, logs.dead), (2, 1, 1));
    running.stop().await;
}

#[tokio::test]
async fn a_row_that_postgres_refuses_costs_only_its_own_envelope() {
    let running = Running::start().await;
    let mut tables = running.tables().await;
    sqlx::query("alter table logs add constraint strict check (body <> 'refused')").execute(&mut tables).await.unwrap();
    running.publish("a", 1, &["one"]).await;
    running.publish("b", 2, &["two", "refused"]).await;
    running.publish("c", 3, &["three"]).await;
    running.finds(&["one", "three"]).await;
    let logs = running.settles().await;
    assert_eq!((logs.stored, logs.dead, logs.lost), (2, 1, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_tick_is_passed_over_and_what_only_a_newer_version_knows_waits_for_it() {
    let running = Running::start().await;
    running.bus.tick(Subject::Logs(0), testkit::now()).await.unwrap();
    let newer = Outgoing::new("newer", "?").header("Sl-Schema", "otlp.logs.v2");
    running.publish_raw(newer.header("Sl-Encoding", "identity").header("Sl-Tenant", "default")).await;
    running.publish("a", 1, &["one"]).await;
    running.finds(&["one"]).await;
    testkit::eventually("all but one is answered", PATIENCE, async || {
        let logs = running.account().await;
        if (logs.stored, logs.passed, logs.in_flight) == (1, 1, 1) { Ok(()) } else { Err(format!("{logs:?}")) }
    })
    .await;
    assert_eq!(running.account().await.dead, 0);
    running.stop().await;
}

#[tokio::test]
async fn what_was_stored_before_its_consumer_was_lost_is_not_stored_again() {
    let running = Running::start().await;
    running.publish("a", 1, &["one"]).await;
    running.publish("b", 2, &["two"]).await;
    running.settles().await;
    let context = async_nats::jetstream::new(async_nats::connect(running.settings.nats_url.reveal()).await.unwrap());
    let stream = context.get_stream(Stream::Logs(0).name(&running.settings.namespace)).await.unwrap();
    stream.delete_consumer("log-writer").await.unwrap();
    running.publish("c", 3, &["three"]).await;
    running.finds(&["one", "two", "three"]).await;
    let logs = running.settles().await;
    assert_eq!((logs.received, logs.stored, logs.unexplained), (3, 3, 0));
    running.stop().await;
}

#[tokio::test]
async fn what_is_larger_than_a_transaction_takes_comes_in_several() {
    let running = Running::tuned(|config| config.bytes = 100_000).await;
    let lines: Vec<String> = (0..20).map(|n| format!("{n:02} {}", "x".repeat(60_000))).collect();
    for (n, line) in lines.iter().enumerate() {
        running.publish(&n.to_string(), u8::try_from(n).unwrap(), &[line]).await;
    }
    each_once(&running.database, &lines, PATIENCE).await;
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_cost_its_readers_is_put_aside_and_an_innocent_one_is_stored() {
    let (database, settings) = (testkit::database().await, testkit::namespace());
    let observer = Process::for_test();
    let bus = Bus::connect(&settings, observer.ready("nats")).await.unwrap();
    for (id, batch) in [("poison", 1), ("innocent", 2)] {
        bus.publish(Subject::Logs(0), envelope("default", batch, "web-1", &[id]).encode(id).unwrap()).await.unwrap();
    }
    let mut deliveries = bus.consume(Stream::Logs(0), "log-writer", Options::default());
    for _ in 0..8 {
        let delivery = deliveries.next().await;
        // As readers that were killed: twice with the one message alone, and never with the other.
        if delivery.is_suspect() && delivery.id() == "poison" {
            drop(Trial::begin("log-writer", std::slice::from_ref(&delivery)).await);
        }
        delivery.nak(Duration::from_millis(500)).await;
    }
    deliveries.close().await;
    let running = Running::with(database, settings, |_| {}).await;
    running.finds(&["innocent"]).await;
    let logs = running.settles().await;
    assert_eq!((logs.stored, logs.dead), (1, 1));
    observer.stop().await;
    running.stop().await;
}
