//! Who is firing.

use std::collections::BTreeMap;

use alert_service::store::listing::{Filter, plan};
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
        (ListAlertsRequest { r#match: r#"{host_name="host-b"}"#.into(), ..Default::default() }, vec!["b"]),
        (ListAlertsRequest { state: "firing".into(), rule_id: "rule".into(), ..Default::default() }, vec!["c", "a"]),
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

/// Many alerts that are over, of many rules, and few that are on.
const FILL: &str = r#"
    insert into alerts (id, tenant, rule_id, series, rule_version, evaluated_version, kind, rule_name, level, condition,
        state, labels, descriptive, annotations, value, line, resource_id, starts_unix_nano, ends_unix_nano,
        updated_unix_nano, occurrences, revision, late, transition_id, shard, epoch, decided_order, evaluated_unix_nano)
    select md5(n::text), 't', 'r' || n % 50, md5(n::text), 1, 1, 'metric', 'name', 'info', '> 1',
        case when n % 5000 = 0 then 'firing' else 'resolved' end,
        jsonb_build_object('instance', 'i' || n, 'alertname', 'name'), '{"host_name": "h"}', '{}', 1, '', '', n,
        case when n % 5000 = 0 then 0 else n end, n, 1, 1, false, 'x', 's', 1, n, n
    from generate_series(1, 40000) n;
    analyze alerts"#;

#[tokio::test]
async fn each_way_to_ask_reads_its_page_from_an_index_however_many_alerts_are_over() {
    let service = Service::start().await;
    sqlx::raw_sql(FILL).execute(&service.pool).await.unwrap();
    let all = Filter { tenant: "t".into(), ..Filter::default() };
    let state = |state: &str, filter: &Filter| Filter { state: state.into(), ..filter.clone() };
    let rule = |filter: &Filter| Filter { rule_id: "r7".into(), ..filter.clone() };
    let labels = BTreeMap::from([("instance".to_owned(), "i777".to_owned())]);
    let questions = [
        (all.clone(), "alerts_by_start"),
        (state("firing", &all), "alerts_by_state"),
        (state("resolved", &all), "alerts_by_sta"),
        (rule(&all), "alerts_by_rule"),
        (state("firing", &rule(&all)), "alerts_by_rule_and_state"),
        (Filter { labels, ..all }, "alerts_by_labels"),
    ];
    for (filter, index) in questions {
        for after in [None, Some((20_000, "x".to_owned()))] {
            let plan = plan(&service.pool, &filter, after.as_ref()).await.unwrap();
            assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{filter:?}\n{plan}");
            // A page in the order of its index: nothing is read that is not shown.
            assert!(index == "alerts_by_labels" || !plan.contains("Sort"), "{filter:?}\n{plan}");
        }
    }
    service.process.stop().await;
}
