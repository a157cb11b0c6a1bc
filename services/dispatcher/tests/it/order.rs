//! In which order a receiver hears of a group, whoever sends.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{Bus, Outgoing, Subject};
use dispatcher::store::adding::{self, Incoming, Patience};
use lifecycle::Process;
use prost::Message as _;
use proto::dispatch::ListDeliveriesRequest;
use settings::Secret;
use testkit::{Gate, eventually};

use crate::receiver::{Answer, Receiver};
use crate::support::{Heard, PATIENCE, RETENTION, Service, at, notification, numbered, settings};

const PATIENT: Patience = Patience { wait: Duration::from_secs(60), retention: RETENTION };

#[tokio::test]
async fn one_that_comes_before_its_predecessor_waits_for_it_and_both_are_told_in_order() {
    let mut receiver = Receiver::start([]).await;
    let mut service = Service::start().await;
    service.create("ops", &receiver.url()).await;
    let firing = numbered(&service.tenant, "a", "firing", 10, &["ops"]);
    let mut resolved = numbered(&service.tenant, "a", "resolved", 20, &["ops"]);
    resolved.previous_sequence = at(10);
    service.publish(&resolved).await;
    service.until_it_waits().await;
    service.publish(&firing).await;
    assert_eq!(receiver.request().await.json()["status"], "firing");
    assert_eq!(receiver.request().await.json()["status"], "resolved");
    assert_eq!((service.event().await.state, service.event().await.state), ("delivered".into(), "delivered".into()));
    service.process.stop().await;
}

/// One whose predecessor is still to come waits at a dispatcher that cannot look for that, or cannot get it, for longer than
/// it would wait; then both are told in order.
async fn waits_through_an_outage(
    gate: &Gate,
    database: &store::Settings,
    broker: &bus::Settings,
    direct: &bus::Settings,
) {
    let mut receiver = Receiver::start([]).await;
    let mut patient = settings();
    patient.predecessor_wait = Duration::from_secs(8);
    let mut service = Service::start_on(&patient, database, broker).await;
    service.create("ops", &receiver.url()).await;
    let firing = numbered(&service.tenant, "a", "firing", 10, &["ops"]);
    let mut resolved = numbered(&service.tenant, "a", "resolved", 20, &["ops"]);
    resolved.previous_sequence = at(10);
    service.publish(&resolved).await;
    service.until_it_waits().await;
    gate.freeze();
    tokio::time::sleep(patient.predecessor_wait * 5 / 4).await;
    let process = Process::for_test();
    let bus = Bus::connect(direct, process.ready("nats")).await.unwrap();
    bus.publish(Subject::Notifications, Outgoing::new("the first", firing.encode_to_vec())).await.unwrap();
    gate.open();
    assert_eq!(receiver.request().await.json()["status"], "firing");
    assert_eq!(receiver.request().await.json()["status"], "resolved");
    service.process.stop().await;
    process.stop().await;
}

#[tokio::test]
async fn while_nobody_can_look_for_a_predecessor_it_is_not_late() {
    let (mut database, broker) = (testkit::database().await, testkit::namespace());
    let gate = Gate::before(database.database_url.reveal()).await;
    database.database_url = Secret::from(gate.url().to_owned());
    database.database_transaction_timeout = Duration::from_secs(1);
    waits_through_an_outage(&gate, &database, &broker, &broker).await;
}

#[tokio::test]
async fn while_the_broker_cannot_bring_a_predecessor_it_is_not_late() {
    let (database, direct) = (testkit::database().await, testkit::namespace());
    let gate = Gate::before(direct.nats_url.reveal()).await;
    let broker = bus::Settings { nats_url: Secret::from(gate.url().to_owned()), ..direct.clone() };
    waits_through_an_outage(&gate, &database, &broker, &direct).await;
}

#[tokio::test]
async fn one_whose_predecessor_never_comes_is_told_after_a_while_and_one_whose_is_past_the_retention_at_once() {
    let mut receiver = Receiver::start([]).await;
    let mut quick = settings();
    quick.predecessor_wait = Duration::from_millis(300);
    let mut service = Service::start_with(&quick).await;
    service.create("ops", &receiver.url()).await;
    let mut told = numbered(&service.tenant, "a", "resolved", 20, &["ops"]);
    told.previous_sequence = at(10);
    service.publish(&told).await;
    assert_eq!(receiver.request().await.json()["status"], "resolved");
    service.process.stop().await;

    let mut patient = settings();
    patient.predecessor_wait = Duration::from_secs(3_600);
    let mut service = Service::start_with(&patient).await;
    service.create("ops", &receiver.url()).await;
    let mut told = numbered(&service.tenant, "b", "firing", 20, &["ops"]);
    told.previous_sequence = at(0) - u64::try_from(patient.delivery_retention.as_millis()).unwrap();
    service.publish(&told).await;
    assert_eq!(receiver.request().await.json()["status"], "firing");
    service.process.stop().await;
}

#[tokio::test]
async fn what_began_and_ended_within_an_outage_is_told_in_order_however_long_it_took() {
    let mut receiver = Receiver::start([]).await;
    let mut service = Service::start().await;
    service.create("ops", &receiver.url()).await;
    let firing = numbered(&service.tenant, "a", "firing", 1, &["ops"]);
    let mut resolved = numbered(&service.tenant, "a", "resolved", 30 * 60 * 1_000, &["ops"]);
    resolved.previous_sequence = at(1);
    service.publish(&resolved).await;
    service.publish(&firing).await;
    assert_eq!(receiver.request().await.json()["status"], "firing");
    assert_eq!(receiver.request().await.json()["status"], "resolved");
    service.process.stop().await;
}

#[tokio::test]
async fn one_waits_for_each_that_is_missing_before_it_whoever_that_is_for() {
    let mut receiver = Receiver::start([]).await;
    let mut patient = settings();
    patient.predecessor_wait = Duration::from_secs(3_600);
    let mut service = Service::start_with(&patient).await;
    for name in ["ops", "chat"] {
        service.create(name, &receiver.url()).await;
    }
    let told = |number: u64, state, receivers: &[&str]| {
        let mut told = numbered(&service.tenant, "a", state, number, receivers);
        told.previous_sequence = if number > 1 { at(number - 1) } else { 0 };
        Incoming { notification: told, traceparent: None }
    };
    let [first, second, third, fourth] = [
        told(1, "firing", &["ops"]),
        told(2, "firing", &["chat"]),
        told(3, "firing", &["chat"]),
        told(4, "resolved", &["ops"]),
    ];
    let awaits = async || {
        let awaits: Vec<Option<i64>> = sqlx::query_scalar(
            "select awaits from deliveries where state = 'pending' and receiver = 'ops' order by sequence",
        )
        .fetch_all(&service.pool)
        .await
        .unwrap();
        awaits
    };
    let sequence = |number| Some(i64::try_from(at(number)).unwrap());
    adding::add(&service.pool, &[second], PATIENT).await.unwrap();
    adding::add(&service.pool, &[fourth], PATIENT).await.unwrap();
    assert_eq!(awaits().await, [sequence(3)]);
    adding::add(&service.pool, &[third], PATIENT).await.unwrap();
    assert_eq!(awaits().await, [sequence(1)]);
    service.publish(&first.notification).await;
    let mut told = Vec::new();
    while told.len() < 4 {
        told.push(receiver.request().await.sequence());
    }
    told.retain(|number| [1, 4].contains(number));
    assert_eq!(told, [1, 4]);
    service.process.stop().await;
}

#[tokio::test]
async fn what_is_older_than_what_the_receiver_has_had_is_superseded() {
    let mut receiver = Receiver::start([]).await;
    let mut service = Service::start().await;
    service.create("ops", &receiver.url()).await;
    let (firing, resolved) = (
        numbered(&service.tenant, "a", "firing", 10, &["ops"]),
        numbered(&service.tenant, "a", "resolved", 20, &["ops"]),
    );
    service.publish(&resolved).await;
    assert_eq!(receiver.request().await.json()["status"], "resolved");
    assert_eq!(service.event().await.state, "delivered");
    service.publish(&firing).await;
    let event = service.event().await;
    assert_eq!((event.state.as_str(), event.attempts), ("superseded", 0));
    let superseded = ListDeliveriesRequest { state: "superseded".into(), ..Default::default() };
    let (listed, _) = service.deliveries(superseded).await.unwrap();
    assert_eq!((listed.len(), listed[0].sequence, listed[0].alert_state.as_str()), (1, at(10), "firing"));
    assert!(receiver.is_quiet());
    service.process.stop().await;
}

#[tokio::test]
async fn one_that_comes_while_a_newer_one_waits_goes_first_and_one_that_comes_while_that_is_sent_is_superseded() {
    let mut receiver = Receiver::start([Answer::Status(503), Answer::Hang]).await;
    let mut quick = settings();
    quick.webhook_timeout = Duration::from_secs(2);
    quick.webhook_retry_first = Duration::from_millis(300);
    let mut service = Service::start_with(&quick).await;
    service.create("ops", &receiver.url()).await;
    let told = |sequence, state| numbered("t", "a", state, sequence, &["ops"]);
    let own = |service: &Service, sequence, state| {
        let mut own = told(sequence, state);
        own.tenant = service.tenant.clone();
        own
    };
    let newer = own(&service, 30, "resolved");
    service.publish(&newer).await;
    assert_eq!(receiver.request().await.json()["status"], "resolved");
    // It waits for its next attempt; what comes now stands before it.
    let older = own(&service, 20, "firing");
    service.publish(&older).await;
    assert_eq!(receiver.request().await.json()["status"], "firing");
    // That attempt hangs, so the next one of the same group must wait for it.
    let oldest = own(&service, 10, "firing");
    service.publish(&oldest).await;
    let mut states = Vec::new();
    for _ in 0..3 {
        let event = service.event().await;
        states.push((event.notification_id, event.state));
    }
    states.sort();
    let expected = [(oldest.id, "delivered"), (older.id, "delivered"), (newer.id, "delivered")];
    let of = |state: &(String, String)| state.1.clone();
    assert!(states.iter().map(of).all(|state| ["delivered", "superseded"].contains(&state.as_str())), "{states:?}");
    assert_eq!(states.iter().map(|state| state.0.clone()).collect::<Vec<_>>(), expected.map(|(id, _)| id));
    let last = states.last().unwrap();
    assert_eq!(last.1, "delivered", "the newest is told in any case");
    service.process.stop().await;
}

#[tokio::test]
async fn two_dispatchers_of_which_one_is_slow_tell_each_group_in_order_and_once() {
    const GROUPS: usize = 30;
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let gates = (Gate::before(namespace.nats_url.reveal()).await, Gate::before(database.database_url.reveal()).await);
    let slow_broker =
        bus::Settings { nats_url: Secret::from(format!("nats://{}", gates.0.address())), ..namespace.clone() };
    let slow_store = store::Settings { database_url: Secret::from(gates.1.url().to_owned()), ..database.clone() };
    let mut receiver = Receiver::start((0..200).map(|n| Answer::Status(if n % 7 == 3 { 500 } else { 200 }))).await;
    let mut quick = Service::start_on(&settings(), &database, &namespace).await;
    let slow = Service::start_on(&settings(), &slow_store, &slow_broker).await;
    quick.create("ops", &receiver.url()).await;
    gates.0.slow(Duration::from_millis(20));
    gates.1.slow(Duration::from_millis(3));
    for sequence in 1..=4_u64 {
        let state = if sequence % 2 == 1 { "firing" } else { "resolved" };
        for group in 0..GROUPS {
            let mut told = numbered(&quick.tenant, &format!("g{group}"), state, sequence, &["ops"]);
            told.previous_sequence = if sequence > 1 { at(sequence - 1) } else { 0 };
            quick.publish(&told).await;
        }
    }
    let mut ended: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..4 * GROUPS {
        let event = quick.event().await;
        ended.entry(event.group_id).or_default().push(event.state);
    }
    let mut heard = Heard::default();
    while let Some(request) = receiver.try_request() {
        heard.hear(&request);
    }
    // Nothing overtook what came before it, so nothing was superseded; and nothing that was taken came again.
    assert_eq!((heard.groups.len(), heard.repeats), (GROUPS, 0), "{:?}", heard.groups);
    for told in heard.groups.values() {
        assert!(matches!(told.last(), Some((4, _, true))), "{told:?}");
    }
    assert!(ended.values().all(|states| *states == ["delivered"; 4]), "{ended:?}");
    quick.process.stop().await;
    slow.process.stop().await;
}

#[tokio::test]
async fn batches_that_hold_the_same_groups_crosswise_never_wait_for_each_other() {
    let service = Service::start().await;
    let incoming = |group: usize, sequence| Incoming {
        notification: numbered(&service.tenant, &format!("g{group}"), "firing", sequence, &["a", "b"]),
        traceparent: None,
    };
    for round in 0..10_u64 {
        let forth: Vec<Incoming> = (0..40).map(|group| incoming(group, 2 * round + 1)).collect();
        let back: Vec<Incoming> = (0..40).rev().map(|group| incoming(group, 2 * round + 2)).collect();
        let (one, other) =
            tokio::join!(adding::add(&service.pool, &forth, PATIENT), adding::add(&service.pool, &back, PATIENT));
        assert_eq!((one.unwrap(), other.unwrap()), (80, 80));
    }
    let next: i64 = sqlx::query_scalar("select count(*) from deliveries where is_next and sequence = $1")
        .bind(i64::try_from(at(1)).unwrap())
        .fetch_one(&service.pool)
        .await
        .unwrap();
    assert_eq!(next, 80);
    service.process.stop().await;
}

#[tokio::test]
async fn a_dispatcher_that_is_cut_off_from_postgres_leaves_its_notifications_to_the_other() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let gate = Gate::before(database.database_url.reveal()).await;
    let through = store::Settings { database_url: Secret::from(gate.url().to_owned()), ..database.clone() };
    let mut receiver = Receiver::start([]).await;
    let mut whole = Service::start_on(&settings(), &database, &namespace).await;
    let cut_off = Service::start_on(&settings(), &through, &namespace).await;
    whole.create("ops", &receiver.url()).await;
    gate.close();
    for alert in 0..40 {
        let told = notification(&whole.tenant, &format!("a{alert}"), "firing", &["ops"]);
        whole.publish(&told).await;
    }
    let mut told = std::collections::BTreeSet::new();
    eventually("all pages", 4 * PATIENCE, async || {
        while let Some(request) = receiver.try_request() {
            told.insert(request.header("webhook-id").to_owned());
        }
        if told.len() == 40 { Ok(()) } else { Err(told.len()) }
    })
    .await;
    gate.open();
    whole.process.stop().await;
    cut_off.process.stop().await;
}

#[tokio::test]
async fn a_dispatcher_that_loses_postgres_in_an_attempt_breaks_it_off_before_another_goes_on() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let gate = Gate::before(database.database_url.reveal()).await;
    let through = store::Settings { database_url: Secret::from(gate.url().to_owned()), ..database.clone() };
    let mut receiver = Receiver::start([Answer::Hang]).await;
    let mut patient = settings();
    // Its own time is far from over.
    patient.webhook_timeout = 4 * PATIENCE;
    let mut cut_off = Service::start_on(&patient, &through, &namespace).await;
    cut_off.create("ops", &receiver.url()).await;
    let told = numbered(&cut_off.tenant, "a", "firing", 1, &["ops"]);
    cut_off.publish(&told).await;
    let first = receiver.request().await;
    gate.close();
    let mut whole = Service::start_on(&patient, &database, &namespace).await;
    let next = receiver.request().await;
    assert_eq!(receiver.hanging(), 0, "the first attempt could still be heard");
    assert_eq!(first.header("webhook-id"), next.header("webhook-id"));
    let end = numbered(&cut_off.tenant, "a", "resolved", 2, &["ops"]);
    whole.publish(&end).await;
    assert_eq!(receiver.request().await.sequence(), 2);
    gate.open();
    cut_off.process.stop().await;
    whole.process.stop().await;
}
