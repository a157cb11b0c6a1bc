//! Metric names as people write them, and names that nobody has used before.

use std::time::Duration;

use serde_json::json;
use testkit::eventually;

use crate::support::{Gateway, json as read, reader, store, until_found};

#[tokio::test]
async fn dotted_names_find_what_is_stored_wherever_they_stand() {
    let gateway = Gateway::start().await;
    let tenant = testkit::tenant();
    store(&tenant, "system_memory_total", ",host_name=\"web-1\"", 5).await;
    store(&tenant, "http_server_request_duration_seconds_bucket", ",le=\"1\"", 3).await;
    let expected = until_found(&gateway, &tenant, "system_memory_total").await;
    for query in [
        "system.memory.total",
        "System.Memory.total",
        "{__name__=\"system.memory.total\"}",
        "{\"system.memory.total\"}",
        "system.memory.total{host.name=\"web-1\"}",
        "# it's the panel\nsystem.memory.total",
        "# a `tick\nsystem.memory.total",
    ] {
        assert_eq!(until_found(&gateway, &tenant, query).await[0]["metric"], expected[0]["metric"], "{query}");
    }
    until_found(&gateway, &tenant, "http.server.request.duration.bucket").await;
    until_found(&gateway, &tenant, "sum by (host.name) (system.memory.total)").await;
    gateway.process.stop().await;
}

#[tokio::test]
async fn a_name_that_was_asked_for_before_it_existed_is_found_as_soon_as_any_other() {
    let gateway = Gateway::start().await;
    let tenant = testkit::tenant();
    let token = reader(&tenant);
    store(&tenant, "somebody_asks_for_this", "", 1).await;
    until_found(&gateway, &tenant, "somebody_asks_for_this").await;
    let query = "/prometheus/api/v1/query?query=nobody_has_seen_this";
    for _ in 0..3 {
        let (_, body) = read(gateway.get(&token, query).await).await;
        assert_eq!(body["data"]["result"], json!([]));
    }
    store(&tenant, "nobody_has_seen_this", "", 1).await;
    // The store forgets what it did not find after ten seconds by itself.
    eventually("the first series of the name", Duration::from_secs(5), async || {
        let (_, body) = read(gateway.get(&token, query).await).await;
        if body["data"]["result"] == json!([]) { Err(body.to_string()) } else { Ok(()) }
    })
    .await;
    gateway.process.stop().await;
}
