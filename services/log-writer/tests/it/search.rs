//! Search finds what was asked for, in pages, and nothing of other tenants.

use proto::logs::SearchLogsRequest;
use tonic::Code;

use crate::support::{Running, envelope};

async fn stocked() -> Running {
    let running = Running::start().await;
    running
        .publish_raw(envelope("default", 1, "web-1", &["alpha 1", "error beta", "gamma"]).encode("a").unwrap())
        .await;
    running.publish_raw(envelope("other", 2, "web-1", &["secret"]).encode("b").unwrap()).await;
    running.publish_raw(envelope("default", 3, "web-2", &["delta"]).encode("c").unwrap()).await;
    running.finds(&["alpha 1", "error beta", "gamma", "delta"]).await;
    running
}

async fn bodies(running: &Running, request: SearchLogsRequest) -> Vec<String> {
    let (items, _) = running.search("default", request).await.unwrap();
    items.into_iter().map(|item| item.body).collect()
}

#[tokio::test]
async fn filters_narrow_and_other_tenants_stay_hidden() {
    let running = stocked().await;
    let any = SearchLogsRequest::default;
    assert_eq!(bodies(&running, any()).await, ["delta", "gamma", "error beta", "alpha 1"]);
    assert_eq!(bodies(&running, SearchLogsRequest { level: "warn".into(), ..any() }).await, ["error beta"]);
    assert_eq!(bodies(&running, SearchLogsRequest { contains: "a 1".into(), ..any() }).await, ["alpha 1"]);
    assert_eq!(bodies(&running, SearchLogsRequest { regex: r"^\w+ \d$".into(), ..any() }).await, ["alpha 1"]);
    let selector = r#"{host_name=~"web-[2-9]",kind="host"}"#;
    assert_eq!(bodies(&running, SearchLogsRequest { r#match: selector.into(), ..any() }).await, ["delta"]);
    let (items, _) = running.search("other", any()).await.unwrap();
    assert_eq!(items.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let running = stocked().await;
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let request = SearchLogsRequest { limit: 1, cursor, ..SearchLogsRequest::default() };
        let (items, next) = running.search("default", request).await.unwrap();
        found.extend(items.into_iter().map(|item| item.body));
        if next.is_empty() {
            break;
        }
        cursor = next;
    }
    assert_eq!(found, ["delta", "gamma", "error beta", "alpha 1"]);
    running.stop().await;
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_explained() {
    let running = Running::start().await;
    for (request, word) in [
        (SearchLogsRequest { regex: "(".into(), ..SearchLogsRequest::default() }, "regular expression"),
        (SearchLogsRequest { level: "loud".into(), ..SearchLogsRequest::default() }, "level"),
        (SearchLogsRequest { r#match: "{a=}".into(), ..SearchLogsRequest::default() }, "match"),
        (SearchLogsRequest { cursor: "x".into(), ..SearchLogsRequest::default() }, "cursor"),
        (SearchLogsRequest { from_unix_nano: u64::MAX, ..SearchLogsRequest::default() }, "from"),
    ] {
        let status = running.search("default", request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(word), "{status}");
    }
    running.stop().await;
}
