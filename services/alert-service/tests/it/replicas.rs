//! Two replicas, of which one is slow, cut off, or has the other half of everything.

use std::collections::BTreeMap;
use std::time::Duration;

use alert_service::intake::{self, Fate, Incoming, Patience};
use alert_service::transition::Transition;
use prost::Message as _;
use proto::alerts::Notification;
use settings::Secret;
use testkit::{Gate, until_missing, until_ready};

use crate::support::{PATIENCE, Service, next};

const SERIES: usize = 40;

/// Publishes so many transitions of each series, from firing to resolved and back, each naming the one before it.
async fn flap(service: &mut Service, series: usize, times: u64) {
    let mut last: BTreeMap<usize, proto::alerts::Transition> = BTreeMap::new();
    for time in 1..=times {
        let state = if time % 2 == 1 { "firing" } else { "resolved" };
        for number in 0..series {
            let order = time * 1_000 + u64::try_from(number).unwrap();
            let next = match last.get(&number) {
                None => service.transition(state, &format!("s{number}"), order),
                Some(before) => service.after(before, state, order),
            };
            service.publish(&next).await;
            last.insert(number, next);
        }
    }
}

/// Hears `count` notifications: of each series all, in order, with rising sequences.
async fn all_in_order(service: &mut Service, series: usize, count: usize) {
    let mut told: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for heard in 0..series * count {
        let delivery = tokio::time::timeout(3 * PATIENCE, service.notifications.next()).await;
        assert!(delivery.is_ok(), "{heard} of {} came: {told:?}", series * count);
        let delivery = delivery.unwrap();
        let Notification { group, sequence, alerts, .. } = Notification::decode(delivery.payload().clone()).unwrap();
        told.entry(group.unwrap().id).or_default().push((sequence, alerts[0].state.clone()));
    }
    assert_eq!(told.len(), series);
    for told in told.values() {
        assert!(told.is_sorted_by(|a, b| a.0 < b.0), "{told:?}");
        let states: Vec<&str> = told.iter().map(|(_, state)| state.as_str()).collect();
        let expected: Vec<&str> = ["firing", "resolved"].into_iter().cycle().take(count).collect();
        assert_eq!(states, expected);
    }
}

#[tokio::test]
async fn two_replicas_of_which_one_is_slow_lose_no_page_and_tell_none_out_of_order() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let gate = Gate::before(namespace.nats_url.reveal()).await;
    let slow = bus::Settings { nats_url: Secret::from(format!("nats://{}", gate.address())), ..namespace.clone() };
    let mut quick = Service::start_on(&database, &namespace).await;
    let slow = Service::start_on(&database, &slow).await;
    gate.slow(Duration::from_millis(200));
    flap(&mut quick, SERIES, 6).await;
    all_in_order(&mut quick, SERIES, 6).await;
    quick.process.stop().await;
    slow.process.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_from_postgres_leaves_its_pages_to_the_other() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let gate = Gate::before(database.database_url.reveal()).await;
    let through = store::Settings { database_url: Secret::from(gate.url().to_owned()), ..database.clone() };
    let mut whole = Service::start_on(&database, &namespace).await;
    let cut_off = Service::start_on(&through, &namespace).await;
    gate.close();
    flap(&mut whole, SERIES, 4).await;
    all_in_order(&mut whole, SERIES, 4).await;
    until_missing(&cut_off.process, "postgres", PATIENCE).await;
    gate.open();
    until_ready(&cut_off.process, PATIENCE).await;
    whole.process.stop().await;
    cut_off.process.stop().await;
}

#[tokio::test]
async fn batches_that_hold_the_same_alerts_crosswise_never_wait_for_each_other() {
    let service = Service::start().await;
    let incoming = |series: usize, order: u64| {
        let state = if order % 2 == 1 { "firing" } else { "resolved" };
        let wire = service.transition(state, &format!("s{series}"), order);
        let transition = Transition::decode(&wire.encode_to_vec()).unwrap();
        Incoming { transition, sequence: order * 1_000 + u64::try_from(series).unwrap(), traceparent: None }
    };
    for round in 0..20_u64 {
        let forth: Vec<Incoming> = (0..50).map(|series| incoming(series, 2 * round + 1)).collect();
        let mut back: Vec<Incoming> = (0..50).map(|series| incoming(series, 2 * round + 2)).collect();
        back.reverse();
        // A deadlock would end one of them with an error.
        let (one, other) = tokio::join!(
            intake::take(&service.pools, &forth, Patience::of(PATIENCE)),
            intake::take(&service.pools, &back, Patience::of(PATIENCE))
        );
        assert!(one.unwrap().fates.iter().chain(&other.unwrap().fates).all(|fate| matches!(fate, Fate::Applied(_))));
    }
    service.process.stop().await;
}

#[tokio::test]
async fn while_a_replica_waits_for_the_broker_another_takes_the_word_over() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let gate = Gate::before(namespace.nats_url.reveal()).await;
    let silent = bus::Settings { nats_url: Secret::from(format!("nats://{}", gate.address())), ..namespace.clone() };
    let mut whole = Service::start_on(&database, &namespace).await;
    let silent = Service::start_on(&database, &silent).await;
    gate.freeze();
    let firing = whole.transition("firing", "a", 10);
    whole.publish(&firing).await;
    let told = Notification::decode(next(&mut whole.notifications).await.payload().clone()).unwrap();
    assert_eq!(told.alerts[0].state, "firing");
    gate.open();
    whole.process.stop().await;
    silent.process.stop().await;
}
