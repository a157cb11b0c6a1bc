//! The gRPC API: who sees what, and how lists are read.

use authn::Permission;
use fault::Kind;

use crate::support::{Registry, Site, host};

async fn names(registry: &Registry, tenant: &str, selector: &str) -> Vec<String> {
    let mut names: Vec<_> = registry.list(tenant, selector).await.unwrap().into_iter().map(|item| item.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_tenant_sees_its_own_and_nothing_else() {
    let (site, one, other) = (Site::new().await, testkit::tenant(), testkit::tenant());
    let registry = site.start_patient().await;
    let seen = host(&one, "web-1");
    site.publish(&seen).await;
    site.publish(&host(&other, "web-2")).await;
    registry.until_listed(&one, 1).await;
    registry.until_listed(&other, 1).await;
    assert_eq!(names(&registry, &one, "").await, ["web-1"]);
    assert_eq!(names(&registry, &other, "").await, ["web-2"]);
    let foreign = registry.get(&other, &seen.id).await.unwrap_err();
    let unknown = registry.get(&other, "host-nowhere").await.unwrap_err();
    assert_eq!((foreign.kind(), foreign.code()), (Kind::NotFound, "resource_not_found"));
    assert_eq!((unknown.kind(), unknown.code()), (Kind::NotFound, "resource_not_found"));
    assert_eq!(registry.get(&other, "\0").await.unwrap_err().kind(), Kind::NotFound);
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn reading_needs_the_permission_and_a_users_token() {
    let site = Site::new().await;
    let registry = site.start_patient().await;
    let without = testkit::tokens().user("t", &[Permission::LogsRead]);
    let fault = registry.get_with(&without, "x").await.unwrap_err();
    assert_eq!(fault.kind(), Kind::Forbidden);
    assert!(fault.detail().contains("resources:read"));
    let agent = testkit::tokens().agent("t", "a");
    assert_eq!(registry.get_with(&agent, "x").await.unwrap_err().kind(), Kind::Unauthenticated);
    assert_eq!(registry.get_with("nonsense", "x").await.unwrap_err().kind(), Kind::Unauthenticated);
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn selectors_choose_by_properties_labels_and_tags() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start_patient().await;
    for name in ["web-1", "web-2", "db-1"] {
        let mut seen = host(&tenant, name);
        seen.labels.insert("deployment.environment".into(), if name == "web-1" { "prod" } else { "stage" }.into());
        site.publish(&seen).await;
    }
    let items = registry.until_listed(&tenant, 3).await;
    let all = ["db-1", "web-1", "web-2"].map(str::to_owned).to_vec();
    assert_eq!(names(&registry, &tenant, "{}").await, all);
    assert_eq!(names(&registry, &tenant, r#"{kind="host",status="online"}"#).await, all);
    assert_eq!(names(&registry, &tenant, r#"{kind="pod"}"#).await, Vec::<String>::new());
    assert_eq!(names(&registry, &tenant, r#"{name=~"web-.*",deployment_environment="stage"}"#).await, ["web-2"]);
    assert_eq!(names(&registry, &tenant, r#"{agent_id="agent-of-db-1"}"#).await, ["db-1"]);
    assert_eq!(names(&registry, &tenant, r#"{env=""}"#).await, all);
    let id = format!(r#"{{id="{}"}}"#, items[0].id);
    assert_eq!(names(&registry, &tenant, &id).await, [items[0].name.clone()]);
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn pages_hold_everything_once() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start_patient().await;
    for n in 0..7 {
        site.publish(&host(&tenant, &format!("web-{n}"))).await;
    }
    registry.until_listed(&tenant, 7).await;
    for selector in ["", r#"{name!="web-3"}"#, r#"{name="web-3"}"#] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = registry.page(&tenant, selector, 3, &cursor).await.unwrap();
            assert!(page.items.len() <= 3);
            found.extend(page.items.into_iter().map(|item| item.name));
            (cursor, pages) = (page.next, pages + 1);
            if cursor.is_empty() {
                break;
            }
        }
        found.sort();
        assert_eq!(found, names(&registry, &tenant, selector).await);
        assert_eq!(pages, found.len().div_ceil(3), "no page is empty");
    }
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn requests_that_make_no_sense_say_which_field_is_wrong() {
    let site = Site::new().await;
    let registry = site.start_patient().await;
    for (selector, limit, cursor, field) in [
        ("{kind=", 0, "", "match"),
        ("", 1_001, "", "limit"),
        ("", 0, "!!!", "cursor"),
        (r#"{a=~"("}"#, 0, "", "match"),
    ] {
        let fault = registry.page("t", selector, limit, cursor).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Invalid);
        assert!(fault.detail().starts_with(field), "{}", fault.detail());
    }
    registry.stop().await;
    site.stop().await;
}
