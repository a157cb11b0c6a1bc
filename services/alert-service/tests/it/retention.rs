//! What is over goes after its time.

use std::time::Duration;

use sqlx::PgPool;
use testkit::{eventually, now};

use crate::support::{PATIENCE, RETENTION, Service};

/// One column of all rows, in order.
async fn column(pool: &PgPool, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

/// Alerts by their series and state.
const ALERTS: &str = "select labels->>'series' || ' ' || state from alerts order by 1";

/// Lets the service hear of the series `a` (over), `b` (over, and firing again) and `c` (over).
async fn three_series(service: &mut Service, finished: u64) {
    let heard =
        [("firing", "a"), ("resolved", "a"), ("firing", "b"), ("resolved", "b"), ("firing", "b"), ("firing", "c")];
    for (sample, (state, series)) in (10..).zip(heard.into_iter().chain([("resolved", "c")])) {
        let transition = service.transition(state, series, sample);
        service.publish(&transition).await;
        let told = service.notification().await;
        service.delivered(&told, "ops", "delivered", finished).await;
    }
    eventually("the news of deliveries", PATIENCE, async || {
        match column(&service.pool, "select notification_id from deliveries").await.len() {
            7 => Ok(()),
            other => Err(format!("{other} of 7")),
        }
    })
    .await;
}

#[tokio::test]
async fn alerts_that_are_over_go_with_their_history_and_what_fires_or_is_fresh_stays() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let mut service = Service::start_on(&database, &namespace).await;
    let long_ago = u64::try_from(RETENTION.as_nanos()).unwrap() + 60_000_000_000;
    three_series(&mut service, now() - long_ago).await;
    let age = [
        "update transitions set recorded_at = recorded_at - interval '92 days' where series <> 'c'",
        "update applied_transitions set applied_at = applied_at - interval '92 days' where id not like '%-c-%'",
        "update notifications set created_at = created_at - interval '92 days'",
        "update groups set sequence = 1",
    ];
    for statement in age {
        sqlx::query(statement).execute(&service.pool).await.unwrap();
    }
    service.process.stop().await;

    let service = Service::start_on(&database, &namespace).await;
    eventually("the end of old groups, which go last", PATIENCE, async || {
        let left = column(&service.pool, "select id from groups").await;
        if left.len() == 2 { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!(column(&service.pool, ALERTS).await, ["b firing", "c resolved"]);
    let history = "select series || ' ' || outcome from transitions order by sample_unix_nano";
    assert_eq!(column(&service.pool, history).await, ["b reopened", "c opened", "c resolved"]);
    let applied = "select substring(id from '-([abc]-.*)$') from applied_transitions order by 1";
    assert_eq!(column(&service.pool, applied).await, ["c-firing-15", "c-resolved-16"]);
    let shown = "select labels->>'series' || ' ' || deliveries.state from deliveries join told using (notification_id)
                 join alerts on alerts.id = told.alert_id order by 1";
    assert_eq!(column(&service.pool, shown).await, ["b delivered", "c delivered"]);
    assert_eq!(column(&service.pool, "select notification_id from deliveries").await.len(), 2);
    service.process.stop().await;
}

#[tokio::test]
async fn an_alert_that_fired_for_longer_than_is_kept_stays_for_its_time_after_it_ended() {
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let mut service = Service::start_on(&database, &namespace).await;
    let (began, ended) = (now() - 92 * 24 * 3_600 * 1_000_000_000, now());
    let firing = service.transition("firing", "long", began);
    service.publish(&firing).await;
    service.notification().await;
    let resolved = service.after(&firing, "resolved", ended);
    service.publish(&resolved).await;
    service.notification().await;
    let old = service.transition("firing", "old", 10);
    service.publish(&old).await;
    service.notification().await;
    let over = service.after(&old, "resolved", 20);
    service.publish(&over).await;
    service.notification().await;
    let age = "update transitions set recorded_at = recorded_at - interval '92 days' where state = 'firing' or series = 'old'";
    sqlx::query(age).execute(&service.pool).await.unwrap();
    service.process.stop().await;

    let service = Service::start_on(&database, &namespace).await;
    eventually("the end of what ended long ago", PATIENCE, async || {
        let left = column(&service.pool, ALERTS).await;
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!(column(&service.pool, ALERTS).await, ["long resolved"]);
    let history = "select state from transitions order by sample_unix_nano";
    assert_eq!(column(&service.pool, history).await, ["firing", "resolved"], "and why it was on");
    service.process.stop().await;
}

#[tokio::test]
async fn a_transition_that_waited_longer_than_is_remembered_pages_nobody() {
    let forgetful = alert_service::config::Settings { alert_retention: Duration::ZERO, ..crate::support::settings() };
    let mut service = Service::start_with(forgetful, &testkit::database().await, &testkit::namespace()).await;
    let firing = service.transition("firing", "a", 10);
    service.publish(&firing).await;
    eventually("the answer to the broker", PATIENCE, async || {
        let accounts = service.bus.account().await.map_err(|error| error.to_string())?;
        let account = accounts.into_iter().find(|account| account.stream.ends_with("TRANSITIONS")).unwrap();
        if account.dead == 1 && account.in_flight == 0 { Ok(()) } else { Err(format!("{account:?}")) }
    })
    .await;
    assert!(column(&service.pool, ALERTS).await.is_empty());
    service.process.stop().await;
}
