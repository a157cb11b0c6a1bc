//! What transitions become.

use std::time::Duration;

use alert_service::alert::Outcome;
use alert_service::intake::{self, Fate, Incoming, Patience};
use alert_service::store::{MIGRATIONS, SCHEMA};
use alert_service::transition::Transition;
use bus::{From, Outgoing, Stream, Subject};
use prost::Message as _;
use proto::alerts::{self, ListAlertsRequest};
use settings::Secret;
use testkit::{Gate, eventually, now};

use crate::support::{PATIENCE, SHARD, Service, next};

#[tokio::test]
async fn a_transition_becomes_one_notification_however_often_it_comes() {
    let mut service = Service::start().await;
    let firing = service.transition("firing", "a", 10);
    service.publish(&firing).await;
    let told = service.notification().await;
    let alert = &told.alerts[0];
    assert_eq!((alert.state.as_str(), alert.starts_unix_nano, alert.occurrences), ("firing", 10, 1));
    assert_eq!(alert.annotations["summary"], "a at 97.5");
    assert_eq!((told.receivers, told.received_unix_nano), (vec!["ops".to_owned()], firing.received_unix_nano));
    service.publish(&firing).await;
    service.publish(&firing).await;
    let resolved = service.after(&firing, "resolved", 20);
    service.publish(&resolved).await;
    let next = service.notification().await;
    let ended = &next.alerts[0];
    assert_eq!((ended.id.as_str(), ended.state.as_str(), ended.ends_unix_nano), (alert.id.as_str(), "resolved", 20));
    assert_eq!(service.outcomes().await, ["opened", "resolved"]);
    let (first, second) = (told.group.unwrap(), next.group.unwrap());
    assert_eq!((&first.id, &first.key), (&second.id, &second.key));
    assert!(told.sequence < next.sequence);
    service.process.stop().await;
}

#[tokio::test]
async fn followers_hear_what_became_of_an_alert_as_the_api_shows_it() {
    let mut service = Service::start().await;
    let firing = service.transition("firing", "a", 10);
    service.publish(&firing).await;
    let edited = alerts::Transition { level: "error".into(), ..service.after(&firing, "firing", 20) };
    service.publish(&edited).await;
    let resolved = service.after(&edited, "resolved", 30);
    service.publish(&resolved).await;
    let changes = service.changes(3).await;
    let words: Vec<(&str, u64)> = changes.iter().map(|change| (change.change.as_str(), change.revision)).collect();
    assert_eq!(words, [("opened", 1), ("refreshed", 2), ("resolved", 3)]);
    let (shown, _) = service.list(ListAlertsRequest::default()).await.unwrap();
    let told = changes[2].alert.clone().unwrap();
    assert_eq!((&told.id, &told.state, &told.labels), (&shown[0].id, &shown[0].state, &shown[0].labels));
    assert_eq!(told.descriptive_labels["host_name"], "host-a");
    service.process.stop().await;
}

#[tokio::test]
async fn an_end_that_overtakes_its_beginning_is_told_after_it() {
    let mut service = Service::start().await;
    let firing = service.transition("firing", "a", 10);
    let resolved = service.after(&firing, "resolved", 20);
    service.publish(&resolved).await;
    // Another series is not held up by the one that waits.
    let other = service.transition("firing", "b", 10);
    service.publish(&other).await;
    assert_eq!(service.told().await.labels["series"], "b");
    service.publish(&firing).await;
    assert_eq!(service.told().await.state, "firing");
    assert_eq!(service.told().await.state, "resolved");
    assert_eq!(service.outcomes().await, ["opened", "opened", "resolved"]);
    let waiting: i64 = sqlx::query_scalar("select count(*) from awaiting").fetch_one(&service.pool).await.unwrap();
    assert_eq!(waiting, 0);
    service.process.stop().await;
}

#[tokio::test]
async fn a_beginning_that_never_comes_is_waited_for_no_longer_than_was_set() {
    let impatient = alert_service::config::Settings {
        alert_predecessor_wait: Duration::from_millis(100),
        ..crate::support::settings()
    };
    let mut service = Service::start_with(impatient, &testkit::database().await, &testkit::namespace()).await;
    let never = service.transition("firing", "a", 10);
    let resolved = service.after(&never, "resolved", 20);
    service.publish(&resolved).await;
    let again = service.after(&resolved, "firing", 30);
    service.publish(&again).await;
    assert_eq!(
        (service.told().await.starts_unix_nano, service.outcomes().await),
        (30, vec!["unmatched".to_owned(), "opened".to_owned()])
    );
    service.process.stop().await;
}

#[tokio::test]
async fn while_nobody_can_look_for_a_beginning_it_is_not_late() {
    let (mut database, broker) = (testkit::database().await, testkit::namespace());
    let gate = Gate::before(database.database_url.reveal()).await;
    database.database_url = Secret::from(gate.url().to_owned());
    database.database_transaction_timeout = Duration::from_secs(1);
    let wait = Duration::from_secs(5);
    let patient = alert_service::config::Settings { alert_predecessor_wait: wait, ..crate::support::settings() };
    let mut service = Service::start_with(patient, &database, &broker).await;
    let firing = service.transition("firing", "a", 10);
    let resolved = service.after(&firing, "resolved", 20);
    // Something before it is not answered yet.
    let stranger = alerts::Transition { state: "tomorrow".into(), ..service.transition("firing", "b", 10) };
    service.publish(&stranger).await;
    service.publish(&resolved).await;
    eventually("it waits", PATIENCE, async || {
        let waiting: i64 = sqlx::query_scalar("select count(*) from awaiting").fetch_one(&service.pool).await.unwrap();
        if waiting == 1 { Ok(()) } else { Err(waiting) }
    })
    .await;
    gate.freeze();
    tokio::time::sleep(wait * 3 / 2).await;
    service.publish(&firing).await;
    gate.open();
    assert_eq!(service.told().await.state, "firing");
    assert_eq!(service.told().await.state, "resolved");
    service.process.stop().await;
}

#[tokio::test]
async fn a_predecessor_that_was_pruned_or_buried_or_never_here_holds_no_page() {
    // Longer than the test waits for anything.
    let patient =
        alert_service::config::Settings { alert_predecessor_wait: 10 * PATIENCE, ..crate::support::settings() };
    let mut service = Service::start_with(patient, &testkit::database().await, &testkit::namespace()).await;
    let pruned = service.transition("resolved", "a", 10);
    let firing = service.after(&pruned, "firing", 20);
    service.publish(&firing).await;
    assert_eq!((service.told().await.starts_unix_nano, service.outcomes().await), (20, vec!["opened".to_owned()]));
    let newer = alerts::Transition { epoch: 2, ..service.transition("firing", "b", 10) };
    service.publish(&newer).await;
    service.told().await;
    let buried = service.transition("firing", "c", 10);
    service.publish(&buried).await;
    let next = alerts::Transition { epoch: 2, ..service.after(&buried, "firing", 20) };
    service.publish(&next).await;
    assert_eq!(service.told().await.labels["series"], "c");
    service.process.stop().await;
}

#[tokio::test]
async fn what_began_and_ended_while_nobody_read_is_told_as_it_would_have_been() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let mut service = Service::start_on(&database, &namespace).await;
    let before = service.transition("firing", "before", 10);
    service.publish(&before).await;
    service.told().await;
    let pool = service.pool.clone();
    let mut missed = Vec::new();
    let mut last = before;
    for (order, state) in [(20, "resolved"), (30, "firing"), (40, "resolved")] {
        last = service.after(&last, state, order);
        missed.push(last.clone());
    }
    let short = service.transition("firing", "within", 21);
    missed.extend([short.clone(), service.after(&short, "resolved", 22)]);
    service.process.stop().await;

    let process = lifecycle::Process::for_test();
    let bus = bus::Bus::connect(&namespace, process.ready("nats")).await.unwrap();
    for transition in &missed {
        let message = Outgoing::new(transition.id.clone(), transition.encode_to_vec());
        bus.publish(Subject::Transitions, message).await.unwrap();
    }
    // However long they lay there: their age decides nothing but when they are forgotten.
    sqlx::query("update applied_transitions set applied_at = applied_at - interval '3 days'")
        .execute(&pool)
        .await
        .unwrap();
    let mut service = Service::start_on(&database, &namespace).await;
    service.notification().await;
    let mut told = Vec::new();
    for _ in 0..5 {
        let alert = service.told().await;
        told.push((alert.labels["series"].clone(), alert.state));
    }
    told.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("before", "resolved"), ("before", "firing"), ("before", "resolved"), ("within", "firing")];
    let expected: Vec<(String, String)> = expected
        .into_iter()
        .chain([("within", "resolved")])
        .map(|(series, state)| (series.to_owned(), state.to_owned()))
        .collect();
    assert_eq!(told, expected);
    service.process.stop().await;
}

#[tokio::test]
async fn what_is_late_changes_the_alert_and_tells_nobody() {
    let mut service = Service::start().await;
    let late = alerts::Transition { late: true, ..service.transition("firing", "a", 10) };
    let ended = alerts::Transition { late: true, ..service.after(&late, "resolved", 20) };
    let last_night = alerts::Transition { late: true, ..service.transition("firing", "b", 30) };
    let goes_on = service.after(&last_night, "firing", 40);
    for transition in [&late, &ended, &last_night, &goes_on] {
        service.publish(transition).await;
    }
    let told = service.told().await;
    assert_eq!((told.labels["series"].as_str(), told.state.as_str(), told.starts_unix_nano), ("b", "firing", 30));
    let (listed, _) = service.list(ListAlertsRequest { state: "resolved".into(), ..Default::default() }).await.unwrap();
    assert_eq!((listed[0].late, listed[0].delivery.as_str(), listed[0].ends_unix_nano), (true, "none", 20));
    service.process.stop().await;
}

#[tokio::test]
async fn an_owner_that_lost_its_shard_is_refused_into_a_dead_letter() {
    let mut service = Service::start().await;
    let mut dead = service.bus.follow(Stream::Dead, From::Sequence(1)).await;
    let new = alerts::Transition { epoch: 2, ..service.transition("firing", "new", 10) };
    let old = service.transition("firing", "old", 10);
    service.publish(&old).await;
    service.publish(&new).await;
    let zombie = service.transition("firing", "zombie", 10);
    service.publish(&zombie).await;
    let letter = next(&mut dead).await;
    assert_eq!(Transition::decode(letter.payload()).unwrap().wire.id, zombie.id);
    let reason = format!("epoch 1 of shard {SHARD} ended: epoch 2 was heard before");
    assert_eq!(letter.header("Sl-Dead-Reason"), Some(reason.as_str()));
    service.publish(&old).await;
    assert_eq!(service.outcomes().await, ["opened", "opened"]);
    service.process.stop().await;
}

#[tokio::test]
async fn what_is_no_transition_is_a_dead_letter_and_holds_nobody_up() {
    let mut service = Service::start().await;
    let mut dead = service.bus.follow(Stream::Dead, From::Sequence(1)).await;
    let broken = alerts::Transition { rule_id: String::new(), ..service.transition("firing", "a", 10) };
    service.publish(&broken).await;
    let good = service.transition("firing", "b", 10);
    service.publish(&good).await;
    assert_eq!(next(&mut dead).await.header("Sl-Dead-Reason"), Some("the field `rule_id` is empty"));
    assert_eq!(service.told().await.labels["series"], "b");
    service.process.stop().await;
}

#[tokio::test]
async fn a_rule_without_receivers_has_alerts_but_no_notifications() {
    let mut service = Service::start().await;
    let quiet = alerts::Transition { receivers: Vec::new(), ..service.transition("firing", "a", 10) };
    service.publish(&quiet).await;
    let loud = service.transition("firing", "b", 10);
    service.publish(&loud).await;
    assert_eq!(service.told().await.labels["series"], "b");
    let (alerts, _) =
        service.list(ListAlertsRequest { r#match: r#"series="a""#.into(), ..Default::default() }).await.unwrap();
    assert_eq!((alerts.len(), alerts[0].delivery.as_str()), (1, "none"));
    service.process.stop().await;
}

#[tokio::test]
async fn a_rule_that_gains_a_receiver_tells_only_that_one_and_all_hear_the_end() {
    let mut service = Service::start().await;
    let firing = service.transition("firing", "a", 10);
    service.publish(&firing).await;
    assert_eq!(service.notification().await.receivers, ["ops"]);
    let edited = alerts::Transition {
        receivers: vec!["chat".into(), "ops".into()],
        rule_version: 2,
        ..service.after(&firing, "firing", 20)
    };
    service.publish(&edited).await;
    assert_eq!(service.notification().await.receivers, ["chat"]);
    let deleted = alerts::Transition { receivers: Vec::new(), ..service.after(&edited, "resolved", 30) };
    service.publish(&deleted).await;
    assert_eq!(service.notification().await.receivers, ["chat", "ops"]);
    service.process.stop().await;
}

#[tokio::test]
async fn what_a_crash_left_in_the_outbox_is_published_by_the_next_start() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let process = lifecycle::Process::for_test();
    let pools = store::open(&process, &database, SCHEMA, MIGRATIONS).await.unwrap();
    let wire = alerts::Transition {
        id: "left".into(),
        tenant: "t".into(),
        rule_id: "rule".into(),
        series: "a".into(),
        state: "firing".into(),
        sample_unix_nano: 10,
        receivers: vec!["ops".into()],
        shard: SHARD.into(),
        ..Default::default()
    };
    let transition = Transition::decode(&wire.encode_to_vec()).unwrap();
    let incoming = Incoming { transition, sequence: 1, traceparent: None };
    // The same process, killed between commit and publishing.
    let taken = intake::take(&pools, std::slice::from_ref(&incoming), Patience::of(PATIENCE)).await.unwrap();
    assert_eq!((taken.fates, taken.told), (vec![Fate::Applied(Outcome::Opened)], true));
    assert_eq!(intake::take(&pools, &[incoming], Patience::of(PATIENCE)).await.unwrap().fates, [Fate::Repeated]);
    let mut service = Service::start_on(&database, &namespace).await;
    assert_eq!(service.told().await.rule_id, "rule");
    service.process.stop().await;
}

#[tokio::test]
async fn news_of_deliveries_stand_at_the_alert_receiver_by_receiver() {
    let mut service = Service::start().await;
    let firing =
        alerts::Transition { receivers: vec!["ops".into(), "chat".into()], ..service.transition("firing", "a", 10) };
    service.publish(&firing).await;
    let told = service.notification().await;
    for (receiver, state, sum) in [
        ("ops", "delivered", "partly_delivered"),
        ("chat", "failed", "partly_delivered"),
        ("chat", "delivered", "delivered"),
    ] {
        service.delivered(&told, receiver, state, now()).await;
        eventually("the news", PATIENCE, async || {
            let (alerts, _) = service.list(ListAlertsRequest::default()).await.unwrap();
            let news = alerts[0].deliveries.iter().find(|news| news.receiver == receiver).unwrap();
            let now = (news.state.as_str(), alerts[0].delivery.as_str());
            if now == (state, sum) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }
    service.process.stop().await;
}

#[tokio::test]
async fn a_burst_is_told_completely_and_in_order() {
    const SERIES: usize = 200;
    let mut service = Service::start().await;
    for (state, order) in [("firing", 10), ("resolved", 20)] {
        for series in 0..SERIES {
            let transition = service.transition(state, &format!("s{series}"), order);
            service.publish(&transition).await;
        }
    }
    let mut states = std::collections::BTreeMap::<String, Vec<String>>::new();
    for _ in 0..2 * SERIES {
        let alert = service.told().await;
        states.entry(alert.id).or_default().push(alert.state);
    }
    assert_eq!(states.len(), SERIES);
    assert!(states.values().all(|states| states == &["firing", "resolved"]), "{states:?}");
    service.process.stop().await;
}
