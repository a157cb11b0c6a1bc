//! Whatever is asked below `/prometheus` is answered in Prometheus's shape.

use authn::Permission;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Gateway, json as read, reader, store, until_found};

async fn refused(gateway: &Gateway, method: Method, path: &str, token: Option<&str>) -> (u16, String) {
    let mut request = gateway.request(method, path);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json", "{path}");
    let (status, body) = read(response).await;
    assert_eq!(body["status"], "error", "{path}: {body}");
    assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {body}");
    (status.as_u16(), body["errorType"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn every_refusal_has_the_shape_that_its_clients_read() {
    let gateway = Gateway::start().await;
    let tenant = testkit::tenant();
    let token = reader(&tenant);
    let known = "/prometheus/api/v1/query?query=up";
    let unknown = ["query_exemplars", "rules", "alerts", "targets", "status/flags", "nothing", "rules/test/test"];
    for path in unknown.map(|path| format!("/prometheus/api/v1/{path}")).into_iter().chain(["/prometheus/x".to_owned()])
    {
        assert_eq!(refused(&gateway, Method::GET, &path, Some(&token)).await, (404, "not_found".into()), "{path}");
        assert_eq!(refused(&gateway, Method::GET, &path, None).await, (401, "unauthorized".into()), "{path}");
    }
    for path in [known, "/prometheus/api/v1/status/buildinfo", "/prometheus/api/v1/metadata"] {
        assert_eq!(refused(&gateway, Method::GET, path, None).await, (401, "unauthorized".into()));
        let agent = testkit::tokens().agent(&tenant, "web-1");
        assert_eq!(refused(&gateway, Method::GET, path, Some(&agent)).await, (403, "forbidden".into()));
    }
    let rules_only = testkit::tokens().user(&tenant, &[Permission::RulesRead]);
    assert_eq!(refused(&gateway, Method::GET, known, Some(&rules_only)).await, (403, "forbidden".into()));
    assert_eq!(refused(&gateway, Method::PUT, known, Some(&token)).await, (405, "bad_data".into()));
    let values = "/prometheus/api/v1/label/__name__/values";
    assert_eq!(refused(&gateway, Method::POST, values, Some(&token)).await, (405, "bad_data".into()));
    gateway.process.stop().await;
}

#[tokio::test]
async fn wrong_questions_are_refused_with_the_reason_and_without_our_filter() {
    let gateway = Gateway::start().await;
    let tenant = testkit::tenant();
    let token = reader(&tenant);
    for path in [
        "query",
        "query?query=",
        "query?query=sum(",
        "query?query=up&time=yesterday",
        "query_range?query=up&start=0&end=11001&step=1",
        "query_range?query=up&start=10&end=0&step=1",
        "query_range?query=up&start=0&end=10",
        "series",
        "series?match[]={",
    ] {
        let (status, body) = read(gateway.get(&token, &format!("/prometheus/api/v1/{path}")).await).await;
        assert_eq!((status, &body["errorType"]), (StatusCode::BAD_REQUEST, &Value::from("bad_data")), "{path}: {body}");
        assert!(!body.to_string().contains(&tenant) && !body.to_string().contains("extra_"), "{path}: {body}");
    }
    let (status, _) = read(gateway.get(&token, "/api/v1/metrics/query_range?query=up&from=-1d&step=1s").await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "the same bound on points");
    gateway.process.stop().await;
}

#[tokio::test]
async fn forms_are_read_whatever_the_case_of_their_type() {
    let gateway = Gateway::start().await;
    let token = reader(&testkit::tenant());
    for kind in ["application/x-www-form-urlencoded", "APPLICATION/X-WWW-FORM-URLENCODED; charset=UTF-8"] {
        let answer = gateway.post(&token, "/prometheus/api/v1/query", kind, "query=1%2B1").await;
        let (status, body) = read(answer).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &Value::from("success")), "{kind}");
    }
    for kind in ["application/json", "text/plain"] {
        let (status, body) = read(gateway.post(&token, "/prometheus/api/v1/query", kind, "query=1").await).await;
        assert_eq!((status, &body["status"]), (StatusCode::UNSUPPORTED_MEDIA_TYPE, &Value::from("error")));
    }
    gateway.process.stop().await;
}

#[tokio::test]
async fn what_grafana_asks_first_is_answered() {
    let gateway = Gateway::start().await;
    let tenant = testkit::tenant();
    let token = reader(&tenant);
    store(&tenant, "system_memory_total", ",host_name=\"web-1\"", 1).await;
    until_found(&gateway, &tenant, "system_memory_total").await;
    let (_, body) = read(gateway.get(&token, "/prometheus/api/v1/status/buildinfo").await).await;
    let version: Vec<u32> =
        body["data"]["version"].as_str().unwrap().split('.').map(|number| number.parse().unwrap()).collect();
    assert!(version >= vec![2, 24, 0], "{body}");
    let (_, body) = read(gateway.get(&token, "/prometheus/api/v1/metadata?limit=1").await).await;
    assert_eq!(body, json!({"status": "success", "data": {}}));
    for name in ["host_name", "host.name", "U__host_2e_name"] {
        let (_, body) = read(gateway.get(&token, &format!("/prometheus/api/v1/label/{name}/values")).await).await;
        assert_eq!(body["data"], json!(["web-1"]), "{name}");
    }
    let (_, body) = read(gateway.get(&token, "/prometheus/api/v1/label/__name__/values").await).await;
    assert_eq!(body["data"], json!(["system_memory_total"]));
    gateway.process.stop().await;
}

#[tokio::test]
async fn answers_are_compressed_for_whoever_takes_that() {
    let gateway = Gateway::start().await;
    let http = reqwest::Client::builder().no_proxy().no_gzip().build().unwrap();
    let url = format!("http://{}/openapi.json", gateway.address);
    let response = http.get(url).header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(response.headers().get("content-encoding").map(|value| value.to_str().unwrap()), Some("gzip"));
    gateway.process.stop().await;
}
