//! What becomes of notifications.

use std::time::Instant;

use dispatcher::delivery;
use proto::dispatch::ListDeliveriesRequest;

use crate::receiver::{Answer, Receiver};
use crate::support::{Service, notification, settings};

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
async fn a_refusal_and_an_unknown_receiver_end_a_delivery_for_good() {
    let mut receiver = Receiver::start([Answer::Status(410)]).await;
    let mut service = Service::start().await;
    service.create("gone", &receiver.url()).await;
    let told = notification(&service.tenant, "a", "firing", &["gone", "nobody"]);
    service.publish(&told).await;
    receiver.request().await;
    let (gone, nobody) = (service.over("gone").await, service.over("nobody").await);
    assert_eq!((gone.state.as_str(), gone.attempts.len()), ("failed", 1));
    assert_eq!((nobody.state.as_str(), nobody.attempts.len()), ("failed", 0));
    let mut errors = [service.event().await, service.event().await].map(|event| (event.receiver, event.error));
    errors.sort();
    let expected = [("gone", "the receiver answered 410"), ("nobody", "there is no receiver of this name")];
    assert_eq!(errors, expected.map(|(name, error)| (name.to_owned(), error.to_owned())));
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
    slow.request().await;
    let begun = Instant::now();
    let told = notification(&service.tenant, "q", "firing", &["quick"]);
    service.publish(&told).await;
    quick.request().await;
    let took = begun.elapsed();
    println!("beside a receiver that hangs: {took:?}");
    assert!(took < settings().webhook_timeout / 4, "{took:?}");
    // The limit for one receiver is two.
    assert!(slow.is_quiet());
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
    impatient.webhook_retry_for = std::time::Duration::from_millis(500);
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
    let receiver = Receiver::start([Answer::Status(404)]).await;
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
