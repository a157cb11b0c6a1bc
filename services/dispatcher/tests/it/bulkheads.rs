//! Receivers that hang, fail and come back, beside those that answer.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::share::Candidate;
use dispatcher::store::claiming::{self, Waiting};
use dispatcher::store::{MIGRATIONS, SCHEMA};
use dispatcher::worker::Worker;
use lifecycle::Process;
use proto::dispatch::ListDeliveriesRequest;
use testkit::eventually;

use crate::receiver::{Answer, Receiver};
use crate::support::{PATIENCE, Service, notification, settings};

#[tokio::test]
async fn sixty_four_receivers_that_hang_delay_no_page_to_one_that_answers() {
    let mut service = Service::start_with(&{
        let mut few = settings();
        // Fewer places than receivers that hang.
        few.webhook_attempts = 32;
        few.webhook_timeout = Duration::from_secs(8);
        few
    })
    .await;
    let mut healthy = Receiver::start([]).await;
    service.create("healthy", &healthy.url()).await;
    let first = notification(&service.tenant, "first", "firing", &["healthy"]);
    service.publish(&first).await;
    healthy.request().await;
    service.event().await;
    let mut hanging = Receiver::start(vec![Answer::Hang; 10_000]).await;
    for number in 0..64 {
        service.create(&format!("dead-{number}"), &hanging.url()).await;
    }
    let names: Vec<String> = (0..64).map(|number| format!("dead-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for alert in 0..3 {
        let stuck = notification(&service.tenant, &format!("s{alert}"), "firing", &names);
        service.publish(&stuck).await;
    }
    for _ in 0..8 {
        hanging.request().await;
    }
    for alert in 0..50 {
        let told = notification(&service.tenant, &format!("h{alert}"), "firing", &["healthy"]);
        service.publish(&told).await;
    }
    for _ in 0..50 {
        healthy.request().await;
        let event = service.event().await;
        assert_eq!((event.receiver.as_str(), event.state.as_str()), ("healthy", "delivered"));
    }
    service.process.stop().await;
}

#[tokio::test]
async fn a_tenant_with_more_receivers_than_are_looked_at_holds_up_no_other() {
    let (process, database) = (Process::for_test(), testkit::database().await);
    let pools = store::open(&process, &database, SCHEMA, MIGRATIONS).await.unwrap();
    let due = "insert into receiver_state (receiver_id, tenant, due_at)
               select gen_random_uuid(), $1, now() - $2 * interval '1 s' from generate_series(1, $3)";
    for (tenant, since, receivers) in [("many", 60, 1_000), ("one", 1, 1)] {
        sqlx::query(due).bind(tenant).bind(since).bind(receivers).execute(&pools.work).await.unwrap();
    }
    let mut tenants = Vec::new();
    let share = |candidates: &[Candidate]| {
        tenants.extend(candidates.iter().map(|candidate| candidate.tenant.clone()));
        Vec::new()
    };
    let waiting = Waiting::of(Duration::ZERO, Arc::default());
    claiming::claim(&pools.work, &Worker::claimer(), &waiting, &[], share).await.unwrap();
    assert!(tenants.len() < 1_000 && tenants[..2].contains(&"one".to_owned()), "{:?}", &tenants[..2]);
    process.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_down_is_asked_by_one_attempt_at_a_time_and_gets_everything_when_it_is_back() {
    let mut receiver = Receiver::start(vec![Answer::Status(503); 8]).await;
    let mut patient = settings();
    patient.webhook_retry_most = Duration::from_millis(400);
    let mut service = Service::start_with(&patient).await;
    service.create("ops", &receiver.url()).await;
    for alert in 0..30 {
        let told = notification(&service.tenant, &format!("a{alert}"), "firing", &["ops"]);
        service.publish(&told).await;
    }
    for _ in 0..8 {
        receiver.request().await;
    }
    // Of thirty deliveries eight attempts were made, none beside another.
    let attempts = "select coalesce(max(attempts), 0)::bigint from deliveries";
    let most: i64 = sqlx::query_scalar(attempts).fetch_one(&service.pool).await.unwrap();
    assert!(most <= 8);
    for _ in 0..30 {
        assert_eq!(service.event().await.state, "delivered");
    }
    let shown = service.receiver("ops").await.unwrap();
    assert_eq!((shown.failures, shown.next_attempt_unix_nano), (0, 0));
    service.process.stop().await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_rest_is_left_alone_with_everything_and_says_so() {
    let mut receiver = Receiver::start([Answer::Busy(3_000)]).await;
    let mut patient = settings();
    patient.webhook_retry_for = Duration::from_secs(12 * 3_600);
    let mut service = Service::start_with(&patient).await;
    service.create("ops", &receiver.url()).await;
    let first = notification(&service.tenant, "first", "firing", &["ops"]);
    service.publish(&first).await;
    receiver.request().await;
    eventually("the note of its rest", PATIENCE, async || {
        let held = "select count(*) from receiver_state where held_until > now() + interval '40 minutes'";
        let held: i64 = sqlx::query_scalar(held).fetch_one(&service.pool).await.unwrap();
        if held == 1 { Ok(()) } else { Err("none") }
    })
    .await;
    for alert in 0..10 {
        let told = notification(&service.tenant, &format!("a{alert}"), "firing", &["ops"]);
        service.publish(&told).await;
    }
    eventually("the deliveries", PATIENCE, async || {
        let (items, _) = service.deliveries(ListDeliveriesRequest::default()).await.unwrap();
        if items.len() == 11 { Ok(()) } else { Err(items.len()) }
    })
    .await;
    let (items, _) = service.deliveries(ListDeliveriesRequest::default()).await.unwrap();
    assert_eq!(items.iter().map(|delivery| delivery.attempts.len()).sum::<usize>(), 1);
    assert!(receiver.is_quiet());
    // Somebody moves it: then it is asked at once.
    let mut elsewhere = Receiver::start([]).await;
    let moved = proto::dispatch::UpdateReceiverRequest {
        id: "ops".into(),
        webhook: Some(proto::dispatch::Webhook { url: elsewhere.url(), secret: String::new() }),
        ..Default::default()
    };
    service.update(moved).await.unwrap();
    for _ in 0..11 {
        elsewhere.request().await;
    }
    service.process.stop().await;
}

#[tokio::test]
async fn a_delivery_that_nobody_noted_is_found_all_the_same() {
    let mut receiver = Receiver::start([]).await;
    let mut service = Service::start().await;
    service.create("ops", &receiver.url()).await;
    let trigger = "create function forget() returns trigger language plpgsql as
                   'begin if new.due_at <= now() then new.due_at = now() + interval ''1 day''; end if; return new; end';
                   create trigger forget before update on receiver_state for each row execute function forget()";
    sqlx::raw_sql(trigger).execute(&service.pool).await.unwrap();
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    service.publish(&told).await;
    eventually("the forgotten note", PATIENCE, async || {
        let noted = "select count(*) from receiver_state where due_at > now() + interval '1 hour'";
        let noted: i64 = sqlx::query_scalar(noted).fetch_one(&service.pool).await.unwrap();
        if noted == 1 { Ok(()) } else { Err("not yet") }
    })
    .await;
    sqlx::raw_sql("drop trigger forget on receiver_state").execute(&service.pool).await.unwrap();
    receiver.request().await;
    service.process.stop().await;
}
