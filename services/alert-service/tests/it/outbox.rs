//! Rules whose words are too large hold up nobody.

use proto::alerts::{ListAlertsRequest, Transition};
use testkit::eventually;

use crate::support::{PATIENCE, Service};

#[tokio::test]
async fn a_rule_that_says_as_much_as_it_may_on_many_series_is_told_and_listed_and_so_is_everybody_else() {
    let mut service = Service::start().await;
    let template = "{{$value}}".repeat(409);
    for series in 0..70 {
        let loud = Transition {
            value: 1.7e308,
            annotations: (0..30).map(|number| (format!("a{number}"), template.clone())).collect(),
            ..service.transition("firing", &format!("s{series}"), 10)
        };
        service.publish(&loud).await;
    }
    let other = Transition { rule_id: "other".into(), ..service.transition("firing", "b", 10) };
    service.publish(&other).await;
    let mut bytes = 0;
    for _ in 0..71 {
        let notification = service.notification().await;
        bytes = bytes.max(prost::Message::encoded_len(&notification));
    }
    assert!(bytes < 256 << 10, "{bytes}");
    let (listed, _) = service.list(ListAlertsRequest { limit: 30, ..Default::default() }).await.unwrap();
    assert_eq!(listed.len(), 30);
    service.process.stop().await;
}

#[tokio::test]
async fn a_message_that_the_broker_never_takes_is_set_aside_and_the_alert_says_so() {
    let mut service = Service::start().await;
    // As an older release may have left it.
    let firing = service.transition("firing", "a", 10);
    service.publish(&firing).await;
    let told = service.notification().await;
    let huge = "insert into outgoing (id, topic, key, tenant, payload)
                select 'huge' || n, 'notifications', 'huge' || n, 't', decode(repeat('00', 2000000), 'hex')
                from generate_series(1, 70) n";
    sqlx::query(huge).execute(&service.pool).await.unwrap();
    sqlx::query("update told set notification_id = 'huge1'").execute(&service.pool).await.unwrap();
    let good = service.transition("firing", "b", 10);
    service.publish(&good).await;
    assert_eq!(service.told().await.labels["series"], "b");
    eventually("the news", PATIENCE, async || {
        let (alerts, _) = service.list(ListAlertsRequest::default()).await.unwrap();
        let alert = alerts.into_iter().find(|alert| alert.id == told.alerts[0].id).unwrap();
        if alert.delivery == "failed" { Ok(()) } else { Err(alert.delivery) }
    })
    .await;
    service.process.stop().await;
}

#[tokio::test]
async fn the_largest_transition_that_is_taken_makes_messages_that_the_broker_takes() {
    let mut service = Service::start().await;
    let large = Transition {
        series_labels: (0..20).map(|number| (format!("l{number}"), "x".repeat(18 << 10))).collect(),
        annotations: (0..30).map(|number| (format!("a{number}"), "{{ $labels.l0 }}".to_owned())).collect(),
        line: "y".repeat(8 << 10),
        ..service.transition("firing", "a", 10)
    };
    assert!(prost::Message::encoded_len(&large) > 365 << 10);
    service.publish(&large).await;
    assert_eq!(service.told().await.labels.len(), 22);
    assert_eq!(service.changes(1).await[0].change, "opened");
    service.process.stop().await;
}
