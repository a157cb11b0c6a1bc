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

#[tokio::test]
async fn a_level_reads_as_it_was_written_and_is_found_by_its_number() {
    let running = stocked().await;
    let request = SearchLogsRequest { level: "Warning".into(), ..SearchLogsRequest::default() };
    let (items, _) = running.search("default", request).await.unwrap();
    assert_eq!(items.len(), 1);
    let found = (items[0].level.as_str(), items[0].severity_text.as_str(), items[0].severity_number);
    assert_eq!(found, ("error", "ERROR", 17));
    running.stop().await;
}

#[tokio::test]
async fn a_selector_finds_its_records_among_more_resources_than_are_looked_up_at_once() {
    let running = stocked().await;
    sqlx::query(
        "insert into log_resources (tenant, ref, resource_id, attributes, labels)
         select 'default', n, 'host-' || n, '{}', jsonb_build_object('host_name', 'web-' || n, 'kind', 'host')
         from generate_series(1000, 3100) n",
    )
    .execute(&mut running.tables().await)
    .await
    .unwrap();
    for (selector, wanted) in [
        (r#"{host.name=~"web-[2-9]"}"#, vec!["delta"]),
        (r#"{host_name!="web-2",kind="host"}"#, vec!["gamma", "error beta", "alpha 1"]),
        (r#"{host_name="web-2"}"#, vec!["delta"]),
        (r#"{host_name="web-2000"}"#, vec![]),
        (r#"{zone="",kind="host",host_name="web-1"}"#, vec!["gamma", "error beta", "alpha 1"]),
    ] {
        let request = SearchLogsRequest { r#match: selector.into(), ..SearchLogsRequest::default() };
        assert_eq!(bodies(&running, request).await, wanted, "{selector}");
    }
    running.stop().await;
}

#[tokio::test]
async fn an_answer_is_bounded_also_where_every_record_has_a_large_resource() {
    let running = Running::start().await;
    let lines: Vec<String> = (0..200).map(|n| format!("{n:03}")).collect();
    let texts: Vec<&str> = lines.iter().map(String::as_str).collect();
    running.publish("a", 1, &texts).await;
    crate::support::each_once(&running.database, &lines, crate::support::PATIENCE).await;
    let larger = "update log_resources set attributes = jsonb_build_object('note', repeat('x', 60000))";
    sqlx::query(larger).execute(&mut running.tables().await).await.unwrap();
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let request = SearchLogsRequest { order: 2, limit: 1_000, cursor, ..SearchLogsRequest::default() };
        let (items, next) = running.search("default", request).await.unwrap();
        let bytes: usize = items.iter().map(|item| item.resource_json.len()).sum();
        assert!(bytes <= 2 << 20, "{bytes} of 12 MB");
        found.extend(items.into_iter().map(|item| item.body));
        if next.is_empty() {
            break;
        }
        cursor = next;
    }
    assert_eq!(found, lines);
    running.stop().await;
}

#[tokio::test]
async fn an_answer_is_bounded_in_bytes_and_the_next_page_goes_on_behind_it() {
    let running = Running::start().await;
    let lines: Vec<String> = (0..9).map(|n| format!("{n} {}", "x".repeat(400_000))).collect();
    for (n, line) in lines.iter().enumerate() {
        running.publish(&n.to_string(), u8::try_from(n).unwrap(), &[line]).await;
    }
    crate::support::each_once(&running.database, &lines, crate::support::PATIENCE).await;
    for regex in ["", "^[0-9] x+$"] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = SearchLogsRequest { order: 2, regex: regex.into(), cursor, ..SearchLogsRequest::default() };
            let (items, next) = running.search("default", request).await.unwrap();
            found.extend(items.into_iter().map(|item| item.body));
            pages += 1;
            if next.is_empty() {
                break;
            }
            cursor = next;
        }
        assert_eq!(found, lines);
        assert!(pages > 1, "4 MB do not fit into one answer");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_regular_expression_finds_its_lines_among_many_in_pages_without_gap_or_repeat() {
    let running = Running::start().await;
    let lines: Vec<String> = (0..700).map(|n| format!("{n:03} line")).collect();
    for (batch, lines) in lines.chunks(100).enumerate() {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        running.publish(&batch.to_string(), u8::try_from(batch).unwrap(), &lines).await;
    }
    crate::support::each_once(&running.database, &lines, crate::support::PATIENCE).await;
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let request = SearchLogsRequest { regex: r"^\d*5 ".into(), limit: 9, cursor, ..SearchLogsRequest::default() };
        let (items, next) = running.search("default", request).await.unwrap();
        assert!(items.len() <= 9);
        found.extend(items.into_iter().map(|item| item.body));
        if next.is_empty() {
            break;
        }
        cursor = next;
    }
    found.sort();
    let wanted: Vec<String> = lines.into_iter().filter(|line| line[..3].ends_with('5')).collect();
    assert_eq!(found, wanted);
    running.stop().await;
}
