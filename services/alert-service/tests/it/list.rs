//! Who is firing.

use authn::Permission;
use fault::Kind;
use proto::alerts::{Alert, ListAlertsRequest, Transition};

use crate::support::Service;

fn series(alerts: &[Alert]) -> Vec<&str> {
    alerts.iter().map(|alert| alert.labels["series"].as_str()).collect()
}

async fn three_alerts() -> Service {
    let mut service = Service::start().await;
    for (name, sample) in [("a", 10), ("b", 20), ("c", 30)] {
        let firing = service.transition("firing", name, sample);
        service.publish(&firing).await;
        service.notification().await;
    }
    let resolved = service.transition("resolved", "b", 40);
    service.publish(&resolved).await;
    service.notification().await;
    service
}

#[tokio::test]
async fn alerts_are_listed_newest_first_and_chosen_by_state_and_labels() {
    let mut service = three_alerts().await;
    let (all, next) = service.list(ListAlertsRequest::default()).await.unwrap();
    assert_eq!((series(&all), next.as_str()), (vec!["c", "b", "a"], ""));
    let chosen = [
        (ListAlertsRequest { state: "firing".into(), ..Default::default() }, vec!["c", "a"]),
        (ListAlertsRequest { state: "resolved".into(), ..Default::default() }, vec!["b"]),
        (ListAlertsRequest { rule_id: "rule".into(), ..Default::default() }, vec!["c", "b", "a"]),
        (ListAlertsRequest { rule_id: "other".into(), ..Default::default() }, vec![]),
        (
            ListAlertsRequest { r#match: r#"{series=~"a|b",severity="critical"}"#.into(), ..Default::default() },
            vec!["b", "a"],
        ),
        (ListAlertsRequest { r#match: r#"{series!="a",env=""}"#.into(), ..Default::default() }, vec!["c", "b"]),
    ];
    for (request, expected) in chosen {
        let (found, _) = service.list(request.clone()).await.unwrap();
        assert_eq!(series(&found), expected, "{request:?}");
    }
    service.process.stop().await;
}

#[tokio::test]
async fn pages_meet_without_a_gap() {
    let mut service = three_alerts().await;
    for selector in ["", r#"{series=~".+"}"#] {
        let mut request = ListAlertsRequest { limit: 2, r#match: selector.into(), ..Default::default() };
        let (first, next) = service.list(request.clone()).await.unwrap();
        assert_eq!(series(&first), ["c", "b"]);
        request.cursor = next;
        let (second, next) = service.list(request).await.unwrap();
        assert_eq!((series(&second), next.as_str()), (vec!["a"], ""));
    }
    service.process.stop().await;
}

#[tokio::test]
async fn others_see_nothing_and_bad_requests_are_told_why() {
    let mut service = three_alerts().await;
    assert_eq!(service.list_as(&testkit::admin_token("somebody-else")).await.unwrap(), 0);
    let token = testkit::tokens().user(&service.tenant, &[Permission::RulesRead]);
    assert_eq!(service.list_as(&token).await.unwrap_err().kind(), Kind::Forbidden);
    assert_eq!(service.list_as("nonsense").await.unwrap_err().kind(), Kind::Unauthenticated);
    let bad = [
        (ListAlertsRequest { r#match: "{a=".into(), ..Default::default() }, "match: "),
        (ListAlertsRequest { state: "on".into(), ..Default::default() }, "state: "),
        (ListAlertsRequest { cursor: "x".into(), ..Default::default() }, "cursor: "),
        (ListAlertsRequest { limit: 5000, ..Default::default() }, "limit: "),
    ];
    for (request, detail) in bad {
        let fault = service.list(request).await.unwrap_err();
        assert!(fault.kind() == Kind::Invalid && fault.detail().starts_with(detail), "{fault:?}");
    }
    service.process.stop().await;
}

#[tokio::test]
async fn a_value_that_is_no_number_and_a_line_come_back_as_they_were() {
    let mut service = Service::start().await;
    let line = Transition { value: f64::NAN, line: "Out of \0 memory".into(), ..service.transition("firing", "a", 10) };
    service.publish(&line).await;
    service.notification().await;
    let (alerts, _) = service.list(ListAlertsRequest::default()).await.unwrap();
    assert!(alerts[0].value.is_nan());
    assert_eq!(alerts[0].line, "Out of \u{fffd} memory");
    service.process.stop().await;
}
