//! Rules as callers see them.

use std::time::Duration;

use authn::Permission;
use fault::{Fault, Kind};
use proto::rules::{
    Bound, CreateRuleRequest, DeleteRuleRequest, GetRuleRequest, ListRulesRequest, Rule, RuleDocument,
    UpdateRuleRequest,
};
use rule_engine::config::Rules;

use crate::support::{
    How, Installation, PATIENCE, Replica, SECOND, TENANT, as_admin, gauge, line, log_rule, metric_rule, now, rules,
};

fn document(name: &str) -> RuleDocument {
    metric_rule(name, "system.cpu.usage_percent", "> 90", 30_000)
}

async fn create(replica: &Replica, document: RuleDocument, key: &str) -> Result<Rule, Fault> {
    let request = CreateRuleRequest { document: Some(document), idempotency_key: key.to_owned() };
    let rule = replica.client().create_rule(as_admin(request)).await.map_err(Fault::from)?.into_inner();
    assert!(rule.bound.is_some());
    // When the shards last reported differs from answer to answer.
    Ok(Rule { bound: None, ..rule })
}

async fn update(replica: &Replica, rule: &Rule, document: RuleDocument, expected_version: u64) -> Result<Rule, Fault> {
    let request = UpdateRuleRequest { id: rule.id.clone(), document: Some(document), expected_version };
    Ok(replica.client().update_rule(as_admin(request)).await.map_err(Fault::from)?.into_inner())
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(outcome: Result<T, Fault>, kind: Kind, code: &str) {
    let fault = outcome.expect_err("a refusal");
    assert_eq!((fault.kind(), fault.code()), (kind, code), "{fault}");
}

#[tokio::test]
async fn a_rule_is_created_read_changed_and_deleted() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let mut wanted = document("cpu high");
    wanted.labels = [("team".to_owned(), "infra".to_owned())].into();
    let rule = create(&replica, wanted.clone(), "").await.unwrap();
    assert_eq!((rule.version, rule.document.as_ref()), (1, Some(&wanted)));
    assert!(rule.created_unix_nano > 0 && rule.created_unix_nano == rule.updated_unix_nano);

    let found = replica.client().get_rule(as_admin(GetRuleRequest { id: rule.id.clone() })).await.unwrap().into_inner();
    assert_eq!(Rule { bound: None, ..found }, rule);

    is_refused(update(&replica, &rule, document("hot"), 7).await, Kind::Stale, "rule_changed");
    let changed = update(&replica, &rule, document("hot"), 1).await.unwrap();
    assert_eq!((changed.version, changed.created_unix_nano), (2, rule.created_unix_nano));
    assert!(changed.updated_unix_nano > rule.updated_unix_nano);
    assert_eq!(update(&replica, &rule, document("hot"), 0).await.unwrap(), changed, "the same again changes nothing");

    let delete = |version| DeleteRuleRequest { id: rule.id.clone(), expected_version: version };
    let stale = replica.client().delete_rule(as_admin(delete(1))).await.map_err(Fault::from);
    is_refused(stale, Kind::Stale, "rule_changed");
    replica.client().delete_rule(as_admin(delete(2))).await.unwrap();
    let gone = replica.client().get_rule(as_admin(GetRuleRequest { id: rule.id.clone() })).await.map_err(Fault::from);
    is_refused(gone, Kind::NotFound, "rule_not_found");
    is_refused(update(&replica, &rule, document("hot"), 0).await, Kind::NotFound, "rule_not_found");
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn names_are_unique_in_a_tenant_and_free_again_after_a_deletion() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let rule = create(&replica, document("one"), "").await.unwrap();
    let other = create(&replica, document("two"), "").await.unwrap();
    is_refused(create(&replica, document("one"), "").await, Kind::Conflict, "rule_exists");
    is_refused(update(&replica, &other, document("one"), 0).await, Kind::Conflict, "rule_exists");
    replica.delete(&rule).await;
    create(&replica, document("one"), "").await.unwrap();
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_repeated_request_answers_the_first_rule() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let first = create(&replica, document("one"), "key").await.unwrap();
    assert_eq!(create(&replica, document("one"), "key").await.unwrap(), first);
    is_refused(create(&replica, document("two"), "key").await, Kind::Conflict, "idempotency_key_reused");
    let (a, b) = tokio::join!(create(&replica, document("race"), "k2"), create(&replica, document("race"), "k2"));
    assert_eq!(a.unwrap(), b.unwrap());
    replica.delete(&first).await;
    is_refused(create(&replica, document("one"), "key").await, Kind::Conflict, "rule_deleted");
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_tenant_has_no_more_rules_than_it_may() {
    let installation = Installation::new().await;
    let few = rule_engine::config::Rules { per_tenant: 2, ..rules() };
    let replica = installation.replica_with(How { rules: few, ..How::default() }).await;
    let first = create(&replica, document("one"), "").await.unwrap();
    create(&replica, document("two"), "").await.unwrap();
    is_refused(create(&replica, document("three"), "").await, Kind::Conflict, "too_many_rules");
    update(&replica, &first, document("another one"), 0).await.unwrap();
    replica.delete(&first).await;
    create(&replica, document("three"), "").await.unwrap();
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn only_a_change_of_what_decides_makes_another_evaluated_version() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let rule = create(&replica, document("one"), "").await.unwrap();
    assert_eq!((rule.version, rule.evaluated_version, rule.kind.as_str()), (1, 1, "metric"));
    let shown = RuleDocument { level: "info".into(), receivers: vec!["others".into()], ..document("a better name") };
    let rule = update(&replica, &rule, shown.clone(), 0).await.unwrap();
    assert_eq!((rule.version, rule.evaluated_version), (2, 1));
    let rule = update(&replica, &rule, RuleDocument { condition: "> 91".into(), ..shown }, 0).await.unwrap();
    assert_eq!((rule.version, rule.evaluated_version), (3, 3));
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_rule_says_what_it_is_about_and_so_does_one_about_nothing() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let nothing = replica.create(metric_rule("a misspelt name", "no.such.metric", "> 1", 0)).await;
    let series = replica.create(metric_rule("three series", "m", "> 1", 0)).await;
    let resources = replica.create(log_rule("two resources", "oom", r#"{host_name=~"w.*"}"#)).await;
    assert!(!series.bound.unwrap().complete, "no shard has looked yet");
    installation.rules_are_in_force(&replica).await;
    for host in ["web", "www", "db"] {
        installation.publish_metrics(TENANT, gauge("m", host, now(), 0.0)).await;
        installation.publish_logs(TENANT, line(host, now(), "all is well")).await;
    }
    for (rule, count) in [(&nothing, 0), (&series, 3), (&resources, 2)] {
        testkit::eventually("the shards have reported", PATIENCE, async || {
            let bound = replica.get(rule).await.bound.unwrap();
            let is_there = bound.complete && bound.count == count && bound.reported_unix_nano > 0;
            if is_there { Ok(()) } else { Err(format!("{bound:?}, not {count}")) }
        })
        .await;
    }
    // The next owner hears of a resource when it writes again, and does not say that there is none meanwhile.
    replica.stop().await;
    let next = installation.replica().await;
    let begin = now();
    let bound = testkit::eventually("the next owner has reported", PATIENCE, async || {
        installation.publish_logs(TENANT, line("web", now(), "all is well")).await;
        let bound = next.get(&resources).await.bound.unwrap();
        if bound.complete && bound.reported_unix_nano > begin + 6 * SECOND {
            Ok(bound)
        } else {
            Err(format!("{bound:?}"))
        }
    })
    .await;
    assert_eq!(bound.count, 2);
    next.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn an_edit_is_never_said_to_be_about_nothing_before_that_is_known() {
    let installation = Installation::new().await;
    let slow = Rules { settle: Duration::from_secs(3_600), ..rules() };
    let replica = installation.replica_with(How { rules: slow, ..How::default() }).await;
    let rule = replica.create(metric_rule("hot", "m", "> 90", 0)).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 1.0)).await;
    let counted = async |rule: &Rule, wanted: &str, is_there: fn(&Bound) -> bool| {
        testkit::eventually(wanted, PATIENCE, async || {
            let bound = replica.get(rule).await.bound.unwrap();
            if is_there(&bound) { Ok(()) } else { Err(format!("{bound:?}")) }
        })
        .await;
    };
    counted(&rule, "a count that is not complete", |bound| (bound.count, bound.complete) == (1, false)).await;
    // As if the hour were over.
    let pool = installation.pool().await;
    let settled = "update rule_engine.lanes set settled_revision = (select number from rule_engine.revision)";
    sqlx::query(settled).execute(&pool).await.unwrap();
    counted(&rule, "a complete count", |bound| (bound.count, bound.complete) == (1, true)).await;
    // Another threshold: until every shard has counted again, nothing is said to be complete, and then all is there.
    let edited = replica.update(&rule, metric_rule("hot", "m", "> 91", 0)).await;
    counted(&edited, "a complete count", |bound| {
        assert!(!bound.complete || bound.count == 1, "{bound:?}");
        bound.complete
    })
    .await;
    // Another metric: whether anything reports it is not known yet, though every shard has heard of the edit.
    let edited = replica.update(&edited, metric_rule("hot", "other", "> 91", 0)).await;
    testkit::eventually("every shard has reported", PATIENCE, async || {
        let query = "select count(*) from rule_engine.lanes, rule_engine.rule_versions
                     where rule_id = $1::uuid and until_revision is null and lane = 'metrics'
                       and reported_revision >= about_revision";
        let count: i64 = sqlx::query_scalar(query).bind(&edited.id).fetch_one(&pool).await.unwrap();
        if count == 2 { Ok(()) } else { Err(count) }
    })
    .await;
    let bound = replica.get(&edited).await.bound.unwrap();
    assert_eq!((bound.count, bound.complete), (0, false));
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn what_there_is_no_room_for_is_said_at_the_rule_and_takes_nobodys_room() {
    let installation = Installation::new().await;
    let small = rule_engine::config::Rules { tenant_state_bytes: 20_000, ..rules() };
    let replica = installation.replica_with(How { rules: small, ..How::default() }).await;
    let loud = replica.create(metric_rule("loud", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    for host in 0..200 {
        installation.publish_metrics(TENANT, gauge("m", &format!("h{host}"), now(), 0.0)).await;
    }
    testkit::eventually("it is said", PATIENCE, async || {
        let bound = replica.get(&loud).await.bound.unwrap();
        if bound.count > 5 && bound.over_capacity > 50 { Ok(()) } else { Err(format!("{bound:?}")) }
    })
    .await;
    let request = CreateRuleRequest { document: Some(metric_rule("quiet", "m", "> 1", 0)), ..Default::default() };
    let quiet = rpc::forward(request, &testkit::admin_token("quiet"));
    replica.client().create_rule(quiet).await.unwrap();
    // One that is bound to already, among those that are not.
    testkit::eventually("the other tenant's rule fires", PATIENCE, async || {
        installation.publish_metrics("quiet", gauge("m", "web", now(), 2.0)).await;
        installation.said().iter().any(|said| said.tenant == "quiet").then_some(()).ok_or("it is silent")
    })
    .await;
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let wrong =
        RuleDocument { level: "loud".into(), r#match: "{kind=}".into(), condition: "90".into(), ..document("x") };
    let status = {
        let request = CreateRuleRequest { document: Some(wrong), idempotency_key: String::new() };
        replica.client().create_rule(as_admin(request)).await.unwrap_err()
    };
    for path in ["level", "match", "condition"] {
        assert!(status.message().contains(&format!("{path}: ")), "{status}");
    }
    is_refused::<Rule>(Err(Fault::from(status)), Kind::Invalid, "invalid_fields");
    is_refused(
        create(&replica, RuleDocument { for_millis: 5, ..log_rule("l", "x", "{}") }, "").await,
        Kind::Invalid,
        "invalid_fields",
    );
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn lists_are_paged_in_order_of_creation() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    for number in 0..5 {
        create(&replica, document(&format!("rule {number}")), "").await.unwrap();
    }
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let request = ListRulesRequest { limit: 2, cursor };
        let page = replica.client().list_rules(as_admin(request)).await.unwrap().into_inner();
        assert!(page.items.len() <= 2);
        names.extend(page.items.into_iter().map(|rule| rule.document.unwrap().name));
        cursor = page.next;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["rule 0", "rule 1", "rule 2", "rule 3", "rule 4"]);
    let odd = ListRulesRequest { limit: 2, cursor: "odd".into() };
    is_refused(replica.client().list_rules(as_admin(odd)).await.map_err(Fault::from), Kind::Invalid, "invalid_fields");
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn another_tenants_rule_is_not_there_and_permissions_are_needed() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let rule = create(&replica, document("one"), "").await.unwrap();
    let stranger = testkit::admin_token("other");
    let get = rpc::forward(GetRuleRequest { id: rule.id.clone() }, &stranger);
    is_refused(replica.client().get_rule(get).await.map_err(Fault::from), Kind::NotFound, "rule_not_found");
    let delete = rpc::forward(DeleteRuleRequest { id: rule.id.clone(), expected_version: 0 }, &stranger);
    is_refused(replica.client().delete_rule(delete).await.map_err(Fault::from), Kind::NotFound, "rule_not_found");
    let list = rpc::forward(ListRulesRequest::default(), &stranger);
    assert!(replica.client().list_rules(list).await.unwrap().into_inner().items.is_empty());

    let reader = testkit::tokens().user(TENANT, &[Permission::RulesRead]);
    let delete = rpc::forward(DeleteRuleRequest { id: rule.id.clone(), expected_version: 0 }, &reader);
    is_refused(replica.client().delete_rule(delete).await.map_err(Fault::from), Kind::Forbidden, "permission_missing");
    let writer = testkit::tokens().user(TENANT, &[Permission::RulesWrite]);
    let get = rpc::forward(GetRuleRequest { id: rule.id.clone() }, &writer);
    is_refused(replica.client().get_rule(get).await.map_err(Fault::from), Kind::Forbidden, "permission_missing");
    let nobody = tonic::Request::new(ListRulesRequest::default());
    let refused = replica.client().list_rules(nobody).await.map_err(Fault::from).expect_err("a refusal");
    assert_eq!(refused.kind(), Kind::Unauthenticated);
    replica.stop().await;
    installation.end().await;
}
