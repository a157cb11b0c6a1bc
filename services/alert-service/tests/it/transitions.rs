//! What transitions become.

use std::time::Duration;

use alert_service::alert::Outcome;
use alert_service::intake::{self, Incoming, Taken};
use alert_service::store::{MIGRATIONS, SCHEMA};
use alert_service::transition::Transition;
use bus::{From, Stream};
use prost::Message as _;
use proto::alerts::ListAlertsRequest;
use testkit::{eventually, now};

use crate::support::{PATIENCE, Service, next};

#[tokio::test]
async fn a_transition_becomes_one_notification_however_often_it_comes() {
    let mut service = Service::start().await;
    let firing = service.transition("firing", "a", 10);
    service.publish(&firing).await;
    let told = service.notification().await;
    let alert = told.alert.unwrap();
    assert_eq!((alert.state.as_str(), alert.starts_unix_nano, alert.occurrences), ("firing", 10, 1));
    assert_eq!(alert.annotations["summary"], "a at 97.5");
    assert_eq!((told.receivers, told.received_unix_nano), (vec!["ops".to_owned()], firing.received_unix_nano));
    service.publish(&firing).await;
    service.publish(&firing).await;
    let resolved = service.transition("resolved", "a", 20);
    service.publish(&resolved).await;
    let next = service.notification().await.alert.unwrap();
    assert_eq!((next.id, next.state.as_str(), next.ends_unix_nano), (alert.id, "resolved", 20));
    assert_eq!(service.outcomes().await, ["opened", "resolved"]);
    service.process.stop().await;
}

#[tokio::test]
async fn an_end_that_overtakes_its_beginning_is_told_after_it() {
    let mut service = Service::start().await;
    let (firing, resolved) = (service.transition("firing", "a", 10), service.transition("resolved", "a", 20));
    service.publish(&resolved).await;
    // Another series is not held up by the one that waits.
    let other = service.transition("firing", "b", 10);
    service.publish(&other).await;
    assert_eq!(service.notification().await.alert.unwrap().labels["series"], "b");
    service.publish(&firing).await;
    assert_eq!(service.notification().await.alert.unwrap().state, "firing");
    assert_eq!(service.notification().await.alert.unwrap().state, "resolved");
    assert_eq!(service.outcomes().await, ["opened", "opened", "resolved"]);
    service.process.stop().await;
}

#[tokio::test]
async fn an_owner_that_lost_its_shard_is_refused_into_a_dead_letter() {
    let mut service = Service::start().await;
    let mut dead = service.bus.follow(Stream::Dead, From::Sequence(1)).await;
    let new = proto::alerts::Transition { epoch: 2, ..service.transition("firing", "new", 10) };
    let old = service.transition("firing", "old", 10);
    service.publish(&old).await;
    service.publish(&new).await;
    let zombie = service.transition("firing", "zombie", 10);
    service.publish(&zombie).await;
    let letter = next(&mut dead).await;
    assert_eq!(Transition::decode(letter.payload()).unwrap().wire.id, zombie.id);
    assert_eq!(letter.header("Sl-Dead-Reason"), Some("epoch 1 of shard metrics.00 ended: epoch 2 was heard before"));
    service.publish(&old).await;
    assert_eq!(service.outcomes().await, ["opened", "opened"]);
    service.process.stop().await;
}

#[tokio::test]
async fn what_is_no_transition_is_a_dead_letter_and_holds_nobody_up() {
    let mut service = Service::start().await;
    let mut dead = service.bus.follow(Stream::Dead, From::Sequence(1)).await;
    let broken = proto::alerts::Transition { state: "glowing".into(), ..service.transition("firing", "a", 10) };
    service.publish(&broken).await;
    let good = service.transition("firing", "b", 10);
    service.publish(&good).await;
    assert_eq!(next(&mut dead).await.header("Sl-Dead-Reason"), Some("the state `glowing` is unknown"));
    assert_eq!(service.notification().await.alert.unwrap().labels["series"], "b");
    service.process.stop().await;
}

#[tokio::test]
async fn a_rule_without_receivers_has_alerts_but_no_notifications() {
    let mut service = Service::start().await;
    let quiet = proto::alerts::Transition { receivers: Vec::new(), ..service.transition("firing", "a", 10) };
    service.publish(&quiet).await;
    let loud = service.transition("firing", "b", 10);
    service.publish(&loud).await;
    assert_eq!(service.notification().await.alert.unwrap().labels["series"], "b");
    let (alerts, _) =
        service.list(ListAlertsRequest { r#match: r#"series="a""#.into(), ..Default::default() }).await.unwrap();
    assert_eq!((alerts.len(), alerts[0].delivery.as_str()), (1, "none"));
    service.process.stop().await;
}

#[tokio::test]
async fn what_a_crash_left_in_the_outbox_is_published_by_the_next_start() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let process = lifecycle::Process::for_test();
    let pool = store::open(&process, &database, SCHEMA, MIGRATIONS).await.unwrap().work;
    let wire = proto::alerts::Transition {
        id: "left".into(),
        tenant: "t".into(),
        rule_id: "rule".into(),
        series: "a".into(),
        state: "firing".into(),
        sample_unix_nano: 10,
        receivers: vec!["ops".into()],
        shard: "metrics.00".into(),
        ..Default::default()
    };
    let transition = Transition::decode(&wire.encode_to_vec()).unwrap();
    let incoming = Incoming { transition, sequence: 1, may_wait: true, traceparent: None };
    // The same process, killed between commit and publishing.
    let taken = intake::take(&pool, std::slice::from_ref(&incoming)).await.unwrap();
    assert_eq!(taken, [Taken::Applied(Outcome::Opened, true)]);
    assert_eq!(intake::take(&pool, &[incoming]).await.unwrap(), [Taken::Repeated]);
    let mut service = Service::start_on(&database, &namespace).await;
    assert_eq!(service.notification().await.alert.unwrap().rule_id, "rule");
    service.process.stop().await;
}

#[tokio::test]
async fn news_of_a_delivery_stand_at_the_alert() {
    let mut service = Service::start().await;
    let firing = service.transition("firing", "a", 10);
    service.publish(&firing).await;
    let told = service.notification().await;
    service.delivered(&told, now()).await;
    eventually("the delivery", PATIENCE, async || {
        let (alerts, _) = service.list(ListAlertsRequest::default()).await.unwrap();
        if alerts[0].delivery == "delivered" { Ok(()) } else { Err(alerts[0].delivery.clone()) }
    })
    .await;
    service.process.stop().await;
}

#[tokio::test]
async fn a_burst_is_told_completely_and_in_order() {
    const SERIES: usize = 200;
    let mut service = Service::start().await;
    for state in [("firing", 10), ("resolved", 20)] {
        for series in 0..SERIES {
            let transition = service.transition(state.0, &format!("s{series}"), state.1);
            service.publish(&transition).await;
        }
    }
    let mut states = std::collections::BTreeMap::<String, Vec<String>>::new();
    for _ in 0..2 * SERIES {
        let alert = service.notification().await.alert.unwrap();
        states.entry(alert.id).or_default().push(alert.state);
    }
    assert_eq!(states.len(), SERIES);
    assert!(states.values().all(|states| states == &["firing", "resolved"]), "{states:?}");
    service.process.stop().await;
}

#[tokio::test]
async fn a_notification_follows_its_transition_at_once() {
    let mut service = Service::start().await;
    let mut times = Vec::new();
    for series in 0..50 {
        let transition = service.transition("firing", &format!("s{series}"), 10);
        let begun = std::time::Instant::now();
        service.publish(&transition).await;
        service.notification().await;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!("transition to notification: median {:?}, worst {:?}", times[25], times[49]);
    assert!(times[25] < Duration::from_millis(250), "the sweep published it, not the commit: {times:?}");
    service.process.stop().await;
}
