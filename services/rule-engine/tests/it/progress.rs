//! A replica that does not come along, and messages that nobody can evaluate.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bus::Envelope;

use crate::support::{How, Installation, PATIENCE, TENANT, gauge, metric_rule, now};

fn names(envelope: &Envelope, text: &str) -> bool {
    envelope.body.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_replica_that_is_cut_off_from_the_broker_alone_gives_its_shards_to_another() {
    let installation = Installation::new().await;
    let gate = testkit::Gate::before(installation.settings.nats_url.reveal()).await;
    let cut = installation.replica_with(How { nats_url: Some(gate.url().to_owned()), ..How::default() }).await;
    installation.holds(&[2]).await;
    let well = installation.replica().await;
    installation.holds(&[1, 1]).await;
    well.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&well).await;

    // Silent rather than gone: connections stay, Postgres is fine, and leases could be renewed for ever.
    gate.freeze();
    installation.holds(&[2]).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    installation.says(1).await;

    // It takes its part again when it can.
    gate.open();
    installation.holds(&[1, 1]).await;
    cut.stop().await;
    well.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_replica_whose_connections_to_postgres_fell_silent_learns_of_rules_on_new_ones() {
    let installation = Installation::new().await;
    let gate = testkit::Gate::before(installation.database.database_url.reveal()).await;
    let database = store::Settings {
        database_url: gate.url().to_owned().into(),
        database_transaction_timeout: Duration::from_secs(1),
        ..installation.database.clone()
    };
    let cut = installation.replica_with(How { database: Some(database), ..How::default() }).await;
    let well = installation.replica().await;
    installation.holds(&[1, 1]).await;
    gate.abandon();
    let rules = 3;
    for number in 0..rules {
        well.create(metric_rule(&format!("rule {number}"), "m", "> 1", 0)).await;
    }
    testkit::eventually("it knows the rules", PATIENCE, async || match cut.metric("sightline_rule_engine_rules") {
        Some(known) if known == rules => Ok(()),
        known => Err(format!("{known:?}")),
    })
    .await;
    cut.stop().await;
    well.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_message_that_makes_the_evaluation_panic_is_set_aside_and_the_next_is_evaluated() {
    let installation = Installation::new().await;
    let witness: fn(&Envelope) = |envelope| assert!(!names(envelope, "poison"), "the test's poison");
    let replica = installation.replica_with(How { witness, ..How::default() }).await;
    replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, gauge("m", "before", now(), 2.0)).await;
    installation.publish_metrics(TENANT, gauge("poison", "web", now(), 2.0)).await;
    installation.publish_metrics(TENANT, gauge("m", "behind", now(), 2.0)).await;
    let said = installation.says(2).await;
    let hosts: Vec<&str> = said.iter().map(|said| said.resource_id.as_str()).collect();
    assert_eq!(hosts, ["host-before", "host-behind"]);
    assert_eq!((said[0].epoch, said[1].epoch), (1, 3), "two owners have failed at it");
    let failed: i64 = sqlx::query_scalar("select count(*) from rule_engine.attempts where reason = 'panicked'")
        .fetch_one(&installation.pool().await)
        .await
        .unwrap();
    assert_eq!(failed, 2);
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_message_that_never_ends_is_set_aside_and_the_next_is_evaluated() {
    let installation = Installation::new().await;
    // Longer than any patience of this test.
    let witness: fn(&Envelope) = |envelope| {
        if names(envelope, "stall") {
            std::thread::sleep(Duration::from_secs(600));
        }
    };
    let replica = installation.replica_with(How { witness, ..How::default() }).await;
    replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, gauge("stall", "web", now(), 2.0)).await;
    installation.publish_metrics(TENANT, gauge("m", "behind", now(), 2.0)).await;
    let said = testkit::eventually("the next is evaluated", 3 * PATIENCE, async || {
        let said = installation.said();
        if said.is_empty() { Err("nothing was said") } else { Ok(said) }
    })
    .await;
    assert_eq!((said[0].resource_id.as_str(), said[0].epoch), ("host-behind", 3));
    replica.kill();
    installation.end().await;
}

#[tokio::test]
async fn a_message_that_takes_the_whole_process_with_it_is_set_aside_too() {
    static TOUCHED: AtomicUsize = AtomicUsize::new(0);
    let installation = Installation::new().await;
    // The process is killed while it has the message in hand, as memory that is used up would do.
    let witness: fn(&Envelope) = |envelope| {
        if names(envelope, "deadly") {
            TOUCHED.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_secs(600));
        }
    };
    let first = installation.replica().await;
    first.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&first).await;
    first.stop().await;
    installation.publish_metrics(TENANT, gauge("deadly", "web", now(), 2.0)).await;
    installation.publish_metrics(TENANT, gauge("m", "behind", now(), 2.0)).await;
    // One dies before anybody is careful, two more are known to have died of it.
    for death in 1..=3 {
        let replica = installation.replica_with(How { witness, ..How::default() }).await;
        testkit::eventually("it has the message in hand", PATIENCE, async || {
            let touched = TOUCHED.load(Ordering::Relaxed);
            if touched == death { Ok(()) } else { Err(format!("{touched} have touched it")) }
        })
        .await;
        replica.kill();
    }
    let survivor = installation.replica_with(How { witness, ..How::default() }).await;
    let said = installation.says(1).await;
    assert_eq!((said[0].resource_id.as_str(), TOUCHED.load(Ordering::Relaxed)), ("host-behind", 3));
    survivor.stop().await;
    installation.end().await;
}
