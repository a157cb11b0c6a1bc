//! What becomes of notifications.

use std::time::Duration;

use dispatcher::delivery::{self, State};
use dispatcher::store::ledger::{Filter, plan};
use dispatcher::store::{MIGRATIONS, SCHEMA};
use proto::dispatch::ListDeliveriesRequest;
use testkit::eventually;

use crate::receiver::{Answer, Receiver};
use crate::support::{PATIENCE, Service, notification, settings};

#[tokio::test]
async fn a_failing_receiver_is_tried_again_and_every_attempt_is_on_record() {
    let mut receiver = Receiver::start([Answer::Status(500), Answer::Busy(0), Answer::Status(204)]).await;
    let mut service = Service::start().await;
    let secret = service.create("ops", &receiver.url()).await.webhook.unwrap().secret;
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    service.publish(&told).await;
    for _ in 0..3 {
        let request = receiver.request().await;
        request.verify(&secret);
        assert_eq!(request.header("webhook-id"), delivery::id(&told.id, "ops"));
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("traceparent").len(), 55);
        let body = request.json();
        assert_eq!((body["version"].as_str(), body["receiver"].as_str()), (Some("4"), Some("ops")));
        assert_eq!(body["alerts"][0]["labels"]["alertname"], "cpu high");
    }
    let over = service.over("ops").await;
    assert_eq!((over.state.as_str(), over.notification_id.as_str()), ("delivered", told.id.as_str()));
    let attempts: Vec<_> = over.attempts.iter().map(|a| (a.number, a.http_status, a.error.as_str())).collect();
    let expected = [(1, 500, "the receiver answered 500"), (2, 503, "the receiver answered 503"), (3, 204, "")];
    assert_eq!(attempts, expected);
    assert!(over.attempts.is_sorted_by_key(|attempt| attempt.started_unix_nano));
    assert!(over.finished_unix_nano > over.created_unix_nano && over.next_attempt_unix_nano == 0);
    let event = service.event().await;
    assert_eq!((event.state.as_str(), event.attempts, event.receiver.as_str()), ("delivered", 3, "ops"));
    assert_eq!(
        (event.received_unix_nano, event.finished_unix_nano),
        (told.received_unix_nano, over.finished_unix_nano)
    );
    service.process.stop().await;
}

#[tokio::test]
async fn a_notification_that_comes_twice_is_delivered_once() {
    let mut receiver = Receiver::start([]).await;
    let mut service = Service::start().await;
    service.create("ops", &receiver.url()).await;
    let first = notification(&service.tenant, "a", "firing", &["ops"]);
    let second = notification(&service.tenant, "b", "firing", &["ops"]);
    for notification in [&first, &first, &first, &second] {
        service.publish(notification).await;
    }
    let mut ids = [receiver.request().await, receiver.request().await].map(|r| r.header("webhook-id").to_owned());
    let mut expected = [delivery::id(&first.id, "ops"), delivery::id(&second.id, "ops")];
    ids.sort();
    expected.sort();
    assert_eq!(ids, expected);
    service.event().await;
    service.event().await;
    assert!(receiver.is_quiet());
    service.process.stop().await;
}

#[tokio::test]
async fn what_is_gone_for_ever_is_over_at_once_and_what_refuses_today_is_tried_for_a_while() {
    let mut gone = Receiver::start([Answer::Status(410)]).await;
    let deployed = Receiver::start([404, 401, 503, 200].map(Answer::Status)).await;
    let refusing = Receiver::start(vec![Answer::Status(404); 100]).await;
    let mut hasty = settings();
    hasty.webhook_refused_for = Duration::from_millis(700);
    let mut service = Service::start_with(&hasty).await;
    service.create("gone", &gone.url()).await;
    service.create("deployed", &deployed.url()).await;
    service.create("refusing", &refusing.url()).await;
    let told = notification(&service.tenant, "a", "firing", &["gone", "deployed", "refusing"]);
    service.publish(&told).await;
    gone.request().await;
    let (gone, refusing) = (service.over("gone").await, service.over("refusing").await);
    assert_eq!(
        (gone.state.as_str(), gone.attempts.len(), gone.reason.as_str()),
        ("failed", 1, "the receiver answered 410")
    );
    assert_eq!(refusing.state, "failed");
    assert!(refusing.attempts.len() > 1 && refusing.reason.ends_with("answered 404"), "{refusing:?}");
    let deployed = service.over("deployed").await;
    assert_eq!((deployed.state.as_str(), deployed.attempts.len()), ("delivered", 4));
    service.process.stop().await;
}

#[tokio::test]
async fn a_delivery_waits_for_a_receiver_that_does_not_exist_yet_and_is_told_when_it_comes() {
    let mut receiver = Receiver::start([]).await;
    let mut service = Service::start().await;
    let told = notification(&service.tenant, "a", "firing", &["late"]);
    service.publish(&told).await;
    let waiting = eventually("the delivery", PATIENCE, async || {
        let (items, _) = service.deliveries(ListDeliveriesRequest::default()).await.unwrap();
        items.into_iter().next().ok_or("none")
    })
    .await;
    assert_eq!(waiting.state, "pending");
    assert!(waiting.reason.starts_with("there is no receiver of this name"), "{waiting:?}");
    service.create("late", &receiver.url()).await;
    assert_eq!(receiver.request().await.header("webhook-id"), delivery::id(&told.id, "late"));
    assert_eq!(service.over("late").await.state, "delivered");
    service.process.stop().await;
}

#[tokio::test]
async fn a_delivery_to_a_receiver_that_never_comes_fails_after_its_time_and_so_does_one_to_a_receiver_that_is_down() {
    let mut down = Receiver::start(vec![Answer::Status(500); 1_000]).await;
    let mut impatient = settings();
    impatient.receiver_wait = Duration::from_millis(1);
    impatient.webhook_retry_for = Duration::from_secs(2);
    let mut service = Service::start_with(&impatient).await;
    service.create("down", &down.url()).await;
    for alert in 0..20 {
        let told = notification(&service.tenant, &format!("a{alert}"), "firing", &["down", "nobody"]);
        service.publish(&told).await;
    }
    down.request().await;
    let mut reasons = Vec::new();
    for _ in 0..40 {
        let event = service.event().await;
        assert_eq!(event.state, "failed");
        reasons.push(event.error);
    }
    assert!(reasons.iter().all(|reason| reason.starts_with("given up")), "{reasons:?}");
    assert_eq!(reasons.iter().filter(|reason| reason.contains("there was no receiver")).count(), 20);
    service.process.stop().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_only_itself() {
    let mut slow = Receiver::start(vec![Answer::Hang; 50]).await;
    let mut quick = Receiver::start([]).await;
    let mut service = Service::start().await;
    service.create("slow", &slow.url()).await;
    service.create("quick", &quick.url()).await;
    for alert in 0..20 {
        let stuck = notification(&service.tenant, &format!("s{alert}"), "firing", &["slow"]);
        service.publish(&stuck).await;
    }
    slow.request().await;
    let told = notification(&service.tenant, "q", "firing", &["quick"]);
    service.publish(&told).await;
    quick.request().await;
    // One that has never answered has one place; the attempt is still under way.
    assert!(slow.is_quiet());
    let (pending, _) =
        service.deliveries(ListDeliveriesRequest { receiver: "slow".into(), ..Default::default() }).await.unwrap();
    assert!(pending.iter().all(|delivery| delivery.state == "pending"), "{pending:?}");
    let event = service.event().await;
    assert_eq!((event.receiver.as_str(), event.state.as_str()), ("quick", "delivered"));
    service.process.stop().await;
}

#[tokio::test]
async fn an_end_waits_for_its_beginning_at_the_same_receiver() {
    let mut receiver = Receiver::start([Answer::Status(503), Answer::Status(503)]).await;
    let mut service = Service::start().await;
    service.create("ops", &receiver.url()).await;
    for state in ["firing", "resolved"] {
        let told = notification(&service.tenant, "a", state, &["ops"]);
        service.publish(&told).await;
    }
    let mut states = Vec::new();
    for _ in 0..4 {
        states.push(receiver.request().await.json()["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(states, ["firing", "firing", "firing", "resolved"]);
    service.process.stop().await;
}

#[tokio::test]
async fn it_is_given_up_in_the_end() {
    let mut receiver = Receiver::start(vec![Answer::Status(500); 100]).await;
    let mut impatient = settings();
    impatient.webhook_retry_for = Duration::from_millis(900);
    let mut service = Service::start_with(&impatient).await;
    service.create("ops", &receiver.url()).await;
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    service.publish(&told).await;
    receiver.request().await;
    let event = service.event().await;
    assert_eq!(event.state, "failed");
    assert!(event.error.starts_with("given up after ") && event.error.ends_with("answered 500"), "{}", event.error);
    service.process.stop().await;
}

#[tokio::test]
async fn deliveries_are_listed_newest_first_in_pages_and_by_filter() {
    let receiver = Receiver::start([Answer::Status(410)]).await;
    let mut service = Service::start().await;
    service.create("ops", &receiver.url()).await;
    for alert in ["a", "b", "c"] {
        let told = notification(&service.tenant, alert, "firing", &["ops"]);
        service.publish(&told).await;
        service.event().await;
    }
    let alerts = |items: &[proto::dispatch::Delivery]| items.iter().map(|d| d.alert_id.clone()).collect::<Vec<_>>();
    let mut request = ListDeliveriesRequest { limit: 2, ..Default::default() };
    let (first, next) = service.deliveries(request.clone()).await.unwrap();
    request.cursor = next;
    let (second, next) = service.deliveries(request).await.unwrap();
    assert_eq!((alerts(&first), alerts(&second), next.as_str()), (vec!["c".into(), "b".into()], vec!["a".into()], ""));
    let failed = ListDeliveriesRequest { state: "failed".into(), ..Default::default() };
    assert_eq!(alerts(&service.deliveries(failed).await.unwrap().0), ["a"]);
    let of_b = ListDeliveriesRequest { alert_id: "b".into(), receiver: "ops".into(), ..Default::default() };
    assert_eq!(alerts(&service.deliveries(of_b).await.unwrap().0), ["b"]);
    let bad = ListDeliveriesRequest { state: "lost".into(), ..Default::default() };
    assert!(service.deliveries(bad).await.unwrap_err().detail().starts_with("state: "));
    service.process.stop().await;
}

/// Many deliveries that are over, to many receivers, and few that are pending.
const FILL: &str = "
    insert into notifications (id, tenant, payload, group_id, sequence, received_unix_nano)
    values ('n', 't', '', 'g', 1, 1);
    insert into deliveries (id, notification_id, tenant, receiver, group_id, sequence, alert_id, rule_name, alert_state,
        alerts, state)
    select 'd' || n, 'n', case when n % 100 = 0 then 't' else 'u' end, 'r' || n, 'g', n, 'a' || n % 1000, 'rule', 'firing', 1,
        case when n % 5000 = 0 then 'pending' else 'delivered' end
    from generate_series(1, 40000) n;
    update deliveries set receiver = 'few' where number % 200 = 0;
    insert into delivery_alerts (alert_id, number) select alert_id, number from deliveries;
    analyze deliveries; analyze delivery_alerts";

#[tokio::test]
async fn each_way_to_ask_reads_its_page_from_an_index_however_many_deliveries_are_over() {
    let (process, database) = (lifecycle::Process::for_test(), testkit::database().await);
    let pool = store::open(&process, &database, SCHEMA, MIGRATIONS).await.unwrap().work;
    sqlx::raw_sql("alter table deliveries drop constraint deliveries_once").execute(&pool).await.unwrap();
    sqlx::raw_sql(FILL).execute(&pool).await.unwrap();
    let all = Filter { tenant: "t".into(), ..Filter::default() };
    let to_few = Filter { receiver: "few".into(), ..all.clone() };
    let pending = |filter: &Filter| Filter { state: Some(State::Pending), ..filter.clone() };
    let questions = [
        (all.clone(), "deliveries_newest"),
        (to_few.clone(), "deliveries_by_receiver"),
        (pending(&all), "deliveries_by_state"),
        // What waits has an index of its own besides.
        (pending(&to_few), "Index Scan using deliveries_"),
        (Filter { alert_id: "a0".into(), ..all }, "delivery_alerts_pkey"),
    ];
    for (filter, index) in questions {
        for before in [i64::MAX, 20_000] {
            let plan = plan(&pool, &filter, before).await.unwrap();
            assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{filter:?}\n{plan}");
        }
    }
    process.stop().await;
}
