//! What fires, said from time to time, and what is made of it.

use proto::alerts::{ListAlertsRequest, Transition};
use testkit::eventually;

use crate::support::{PATIENCE, Service};

/// Hashes of series, as the rule-engine writes them.
const A: &str = "00000000000000aa";
const B: &str = "00000000000000bb";

async fn firing(service: &mut Service, series: &str, order: u64) -> Transition {
    let firing = service.transition("firing", series, order);
    service.publish(&firing).await;
    assert_eq!(service.told().await.labels["series"], series);
    firing
}

/// Alerts by their series, state and reason.
async fn alerts(service: &mut Service) -> Vec<String> {
    let (mut alerts, _) = service.list(ListAlertsRequest::default()).await.unwrap();
    alerts.sort_by(|a, b| a.labels["series"].cmp(&b.labels["series"]));
    alerts
        .iter()
        .map(|alert| format!("{} {} {}", &alert.labels["series"][14..], alert.state, alert.ended_reason))
        .collect()
}

/// Waits until all that was published was taken.
async fn settled(service: &Service) {
    eventually("the answers to the broker", PATIENCE, async || {
        let accounts = service.bus.account().await.map_err(|error| error.to_string())?;
        let account = accounts.into_iter().find(|account| account.stream.ends_with("TRANSITIONS")).unwrap();
        if account.in_flight == 0 { Ok(()) } else { Err(format!("{account:?}")) }
    })
    .await;
    eventually("what is due", PATIENCE, async || {
        let due: i64 = sqlx::query_scalar("select count(*) from timers").fetch_one(&service.pool).await.unwrap();
        if due == 0 { Ok(()) } else { Err(due) }
    })
    .await;
}

#[tokio::test]
async fn an_alert_that_two_complete_rounds_do_not_name_is_ended_as_lost_and_told() {
    let mut service = Service::start().await;
    let (kept, _lost) = (firing(&mut service, A, 10).await, firing(&mut service, B, 11).await);
    service.say(1_000, 11, &[&kept]).await;
    service.say(1_000, 11, &[&kept]).await;
    // A part of a round alone says nothing of what it does not name.
    service.say_part((2_000, 1, 2), 11, 1, &[]).await;
    settled(&service).await;
    assert_eq!(alerts(&mut service).await, ["aa firing ", "bb firing "]);
    service.say_part((2_000, 0, 2), 11, 1, &[&kept]).await;
    let told = service.told().await;
    assert_eq!(
        (told.labels["series"].as_str(), told.state.as_str(), told.ended_reason.as_str()),
        (B, "resolved", "lost")
    );
    service.say(3_000, 11, &[&kept]).await;
    settled(&service).await;
    assert_eq!(alerts(&mut service).await, ["aa firing ", "bb resolved lost"]);
    assert_eq!(service.changes(3).await[2].change, "lost");
    service.process.stop().await;
}

#[tokio::test]
async fn many_that_are_lost_are_ended_and_found_again_in_portions_and_a_timer_of_a_newer_release_is_left_to_it() {
    let mut service = Service::start().await;
    let mut all = Vec::new();
    for series in 0..600 {
        let firing =
            Transition { receivers: Vec::new(), ..service.transition("firing", &format!("{series:016x}"), 10) };
        service.publish(&firing).await;
        all.push(firing);
    }
    let of_tomorrow = "insert into timers (kind, key, due_at) values ('escalation', 'a', now() - interval '1 day')";
    sqlx::query(of_tomorrow).execute(&service.pool).await.unwrap();
    service.say(1_000, 10, &[]).await;
    service.say(2_000, 10, &[]).await;
    eventually("the end of all", PATIENCE, async || {
        let on: i64 = sqlx::query_scalar("select count(*) from firing").fetch_one(&service.pool).await.unwrap();
        let lost = "select count(*) from alerts where ended_reason = 'lost'";
        let lost: i64 = sqlx::query_scalar(lost).fetch_one(&service.pool).await.unwrap();
        let kinds: Vec<String> = sqlx::query_scalar("select kind from timers").fetch_all(&service.pool).await.unwrap();
        if (on, lost) == (0, 600) && kinds == ["escalation"] { Ok(()) } else { Err(format!("{on} {lost} {kinds:?}")) }
    })
    .await;
    service.say(3_000, 10, &all.iter().collect::<Vec<_>>()).await;
    eventually("all of them on again", PATIENCE, async || {
        let on: i64 = sqlx::query_scalar("select count(*) from firing").fetch_one(&service.pool).await.unwrap();
        if on == 600 { Ok(()) } else { Err(on) }
    })
    .await;
    service.process.stop().await;
}

#[tokio::test]
async fn who_is_still_expected_to_be_confirmed_though_it_is_over_is_looked_at_once() {
    let mut service = Service::start().await;
    firing(&mut service, A, 10).await;
    sqlx::query("update alerts set ends_unix_nano = starts_unix_nano + 1, state = 'resolved'")
        .execute(&service.pool)
        .await
        .unwrap();
    service.say(1_000, 10, &[]).await;
    service.say(2_000, 10, &[]).await;
    eventually("nothing that is expected, nor due", PATIENCE, async || {
        let count = |sql| sqlx::query_scalar::<_, i64>(sql).fetch_one(&service.pool);
        let left =
            (count("select count(*) from firing").await.unwrap(), count("select count(*) from timers").await.unwrap());
        if left == (0, 0) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    service.process.stop().await;
}

#[tokio::test]
async fn what_is_newer_than_the_rounds_or_of_a_silent_shard_is_not_ended() {
    let mut service = Service::start().await;
    firing(&mut service, A, 100).await;
    let elsewhere = Transition { shard: "01/metrics".into(), ..service.transition("firing", B, 5) };
    service.publish(&elsewhere).await;
    service.told().await;
    for round in [1_000, 2_000, 3_000] {
        service.say(round, 99, &[]).await;
    }
    settled(&service).await;
    assert_eq!(alerts(&mut service).await, ["aa firing ", "bb firing "]);
    service.process.stop().await;
}

#[tokio::test]
async fn rounds_of_an_owner_that_was_replaced_end_nothing() {
    let mut service = Service::start().await;
    let new = Transition { epoch: 2, ..service.transition("firing", A, 10) };
    service.publish(&new).await;
    service.told().await;
    for round in [1_000, 2_000, 3_000] {
        service.say_part((round, 0, 1), 10, 1, &[]).await;
    }
    settled(&service).await;
    assert_eq!(alerts(&mut service).await, ["aa firing "]);
    // One round of the new owner is not enough, whatever its clock says.
    service.say_part((500, 0, 1), 10, 2, &[]).await;
    settled(&service).await;
    assert_eq!(alerts(&mut service).await, ["aa firing "]);
    service.say_part((600, 0, 1), 10, 2, &[]).await;
    assert_eq!(service.told().await.ended_reason, "lost");
    service.process.stop().await;
}

#[tokio::test]
async fn what_was_ended_as_lost_and_fires_all_the_same_is_told_again_and_what_was_ended_by_hand_is_not() {
    let mut service = Service::start().await;
    let (lost, by_hand) = (firing(&mut service, A, 10).await, firing(&mut service, B, 11).await);
    let id = alert_service::alert::alert_id(&by_hand.tenant, &by_hand.rule_id, &by_hand.series);
    let token = testkit::admin_token(&service.tenant);
    service.resolve_as(&id, &token).await.unwrap();
    assert_eq!(service.told().await.ended_reason, "by_hand");
    service.say(1_000, 11, &[&by_hand]).await;
    service.say(2_000, 11, &[&by_hand]).await;
    assert_eq!(service.told().await.ended_reason, "lost");
    service.say(3_000, 11, &[&lost, &by_hand]).await;
    let found = service.told().await;
    assert_eq!((found.labels["series"].as_str(), found.state.as_str(), found.occurrences), (A, "firing", 2));
    service.say(4_000, 11, &[&lost, &by_hand]).await;
    settled(&service).await;
    assert_eq!(alerts(&mut service).await, ["aa firing ", "bb resolved by_hand"]);
    // Lost once more, by the same transition: that is another end.
    service.say(5_000, 11, &[&by_hand]).await;
    service.say(6_000, 11, &[&by_hand]).await;
    let again = service.told().await;
    assert_eq!((again.labels["series"].as_str(), again.ended_reason.as_str(), again.occurrences), (A, "lost", 2));
    service.process.stop().await;
}

#[tokio::test]
async fn what_is_found_again_is_told_to_those_who_heard_of_the_loss_alone() {
    let mut service = Service::start().await;
    let before = Transition { receivers: vec!["former".into()], ..service.transition("firing", A, 10) };
    let ended = service.after(&before, "resolved", 11);
    let fired = service.after(&ended, "firing", 12);
    for transition in [&before, &ended, &fired] {
        service.publish(transition).await;
        service.told().await;
    }
    service.say(1_000, 12, &[]).await;
    service.say(2_000, 12, &[]).await;
    assert_eq!(service.notification().await.receivers, ["ops"]);
    service.say(3_000, 12, &[&fired]).await;
    let found = service.notification().await;
    assert_eq!((found.alerts[0].state.as_str(), found.receivers), ("firing", vec!["ops".to_owned()]));
    service.process.stop().await;
}

#[tokio::test]
async fn rounds_that_lie_ready_at_the_start_hold_no_page_up() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let mut service = Service::start_on(&database, &namespace).await;
    firing(&mut service, A, 10).await;
    // Both shards have a timer that is due, and parts of rounds behind it that want to set it.
    let stopped = service.process.clone();
    stopped.stop().await;
    let due = "insert into timers (kind, key, due_at) values ('unconfirmed', $1, now() - interval '1 minute')";
    sqlx::query(due).bind(crate::support::SHARD).execute(&service.pool).await.unwrap();
    for round in 1..=60 {
        service.say(round * 1_000, 10, &[]).await;
    }
    let page = service.transition("firing", B, 20);
    service.publish(&page).await;
    // Longer than the test waits: whoever holds what another wants is not ended by a clock.
    let patient = store::Settings { database_transaction_timeout: 4 * PATIENCE, ..database };
    let mut service = Service::start_on(&patient, &namespace).await;
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 3 {
        let alert = service.told().await;
        told.insert(format!("{} {}", &alert.labels["series"][14..], alert.state));
    }
    assert_eq!(told.into_iter().collect::<Vec<_>>(), ["aa firing", "aa resolved", "bb firing"]);
    service.process.stop().await;
}

#[tokio::test]
async fn what_a_restored_database_does_not_know_is_opened_once_when_it_is_said_again() {
    let mut service = Service::start().await;
    let fired = firing(&mut service, A, 10).await;
    for table in ["alerts", "applied_transitions", "transitions", "groups"] {
        let restored = format!("truncate {table} cascade");
        sqlx::query(sqlx::AssertSqlSafe(restored)).execute(&service.pool).await.unwrap();
    }
    service.say(1_000, 10, &[&fired]).await;
    for _ in 0..3 {
        service.publish(&fired).await;
    }
    let last = service.after(&fired, "resolved", 20);
    service.publish(&last).await;
    // The broker has the first notification still: the same cause is the same message.
    assert_eq!(service.told().await.state, "resolved");
    assert_eq!(service.outcomes().await, ["opened", "resolved"]);
    service.process.stop().await;
}
