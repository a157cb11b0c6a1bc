//! Alerts that people end.

use authn::Permission;
use fault::Kind;
use proto::alerts::ListAlertsRequest;

use crate::support::Service;

#[tokio::test]
async fn an_alert_is_ended_by_hand_with_a_name_and_everybody_who_heard_of_it_hears_that() {
    let mut service = Service::start().await;
    let firing = service.transition("firing", "a", 10);
    service.publish(&firing).await;
    let alert = service.told().await;
    let token = testkit::admin_token(&service.tenant);
    let ended = service.resolve_as(&alert.id, &token).await.unwrap();
    assert_eq!(
        (ended.state.as_str(), ended.ended_reason.as_str(), ended.ended_by.as_str()),
        ("resolved", "by_hand", "user")
    );
    let told = service.told().await;
    assert_eq!(
        (told.id.as_str(), told.state.as_str(), told.ended_by.as_str()),
        (alert.id.as_str(), "resolved", "user")
    );
    // Again is no error and tells nobody; the rule's own end comes too late.
    assert_eq!(service.resolve_as(&alert.id, &token).await.unwrap().ends_unix_nano, ended.ends_unix_nano);
    let resolved = service.after(&firing, "resolved", 20);
    service.publish(&resolved).await;
    let again = service.after(&resolved, "firing", 30);
    service.publish(&again).await;
    assert_eq!(
        (service.told().await.state.as_str(), service.outcomes().await.join(" ")),
        ("firing", "opened over reopened".into())
    );
    assert_eq!(service.changes(3).await[1].change, "resolved_by_hand");
    service.process.stop().await;
}

#[tokio::test]
async fn who_may_not_or_sees_no_such_alert_ends_nothing() {
    let mut service = Service::start().await;
    let firing = service.transition("firing", "a", 10);
    service.publish(&firing).await;
    let alert = service.told().await;
    let reader = testkit::tokens().user(&service.tenant, &[Permission::AlertsRead]);
    assert_eq!(service.resolve_as(&alert.id, &reader).await.unwrap_err().kind(), Kind::Forbidden);
    let elsewhere = testkit::admin_token("somebody-else");
    assert_eq!(service.resolve_as(&alert.id, &elsewhere).await.unwrap_err().kind(), Kind::NotFound);
    let token = testkit::admin_token(&service.tenant);
    for unknown in ["", "nothing", "a\0b"] {
        assert_eq!(service.resolve_as(unknown, &token).await.unwrap_err().kind(), Kind::NotFound);
    }
    let (listed, _) = service.list(ListAlertsRequest::default()).await.unwrap();
    assert_eq!(listed[0].state, "firing");
    service.process.stop().await;
}
