//! Beside a newer release: what it says and writes is kept, or left to it.

use bus::{Outgoing, Subject};
use prost::Message as _;
use proto::alerts::{DeliveryEvent, ListAlertsRequest, Transition};
use testkit::eventually;

use crate::support::{PATIENCE, Service};

/// Dead letters so far.
async fn dead(service: &Service) -> u64 {
    let accounts = service.bus.account().await.unwrap();
    accounts.iter().map(|account| account.dead).sum()
}

#[tokio::test]
async fn a_transition_in_a_state_of_tomorrow_is_left_to_a_newer_replica() {
    let mut service = Service::start().await;
    let unknown = service.transition("no_data", "a", 10);
    service.publish(&unknown).await;
    let known = service.transition("firing", "b", 10);
    service.publish(&known).await;
    assert_eq!(service.told().await.labels["series"], "b");
    let of_tomorrow = Outgoing::new("tomorrow", Vec::from(*b"\xff"));
    service.bus.publish(Subject::Levels, of_tomorrow).await.unwrap();
    eventually("the dead letter of what nobody can read", PATIENCE, async || match dead(&service).await {
        1 => Ok(()),
        dead => Err(dead),
    })
    .await;
    let accounts = service.bus.account().await.unwrap();
    let account = accounts.iter().find(|account| account.stream.ends_with("TRANSITIONS")).unwrap();
    assert_eq!(account.in_flight, 1, "the transition waits: {account:?}");
    service.process.stop().await;
}

#[tokio::test]
async fn an_alert_in_a_state_of_tomorrow_is_listed_renewed_and_ended() {
    let mut service = Service::start().await;
    let firing = Transition { kind: "forecast".into(), ..service.transition("firing", "a", 10) };
    service.publish(&firing).await;
    service.told().await;
    sqlx::query("update alerts set state = 'acknowledged'").execute(&service.pool).await.unwrap();
    sqlx::query("update told set state = 'firing'").execute(&service.pool).await.unwrap();
    let renewed = service.after(&firing, "firing", 20);
    service.publish(&renewed).await;
    assert_eq!(service.changes(2).await[1].alert.as_ref().unwrap().state, "acknowledged");
    let (listed, _) = service.list(ListAlertsRequest::default()).await.unwrap();
    assert_eq!((listed[0].state.as_str(), listed[0].ends_unix_nano), ("acknowledged", 0));
    let resolved = service.after(&renewed, "resolved", 30);
    service.publish(&resolved).await;
    assert_eq!(service.told().await.state, "resolved");
    assert_eq!(dead(&service).await, 0);
    service.process.stop().await;
}

#[tokio::test]
async fn a_delivery_in_a_state_of_tomorrow_stands_at_the_alert_as_it_is() {
    let mut service = Service::start().await;
    let firing = service.transition("firing", "a", 10);
    service.publish(&firing).await;
    let told = service.notification().await;
    let event = DeliveryEvent {
        tenant: service.tenant.clone(),
        notification_id: told.id.clone(),
        receiver: "ops".into(),
        state: "snoozed".into(),
        finished_unix_nano: 1,
        ..Default::default()
    };
    service.bus.publish(Subject::Deliveries, Outgoing::new("d", event.encode_to_vec())).await.unwrap();
    eventually("the news", PATIENCE, async || {
        let (alerts, _) = service.list(ListAlertsRequest::default()).await.unwrap();
        let state = alerts[0].deliveries[0].state.clone();
        if state == "snoozed" { Ok(()) } else { Err(state) }
    })
    .await;
    assert_eq!(dead(&service).await, 0);
    service.process.stop().await;
}
