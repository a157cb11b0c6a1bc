//! Bad input gets the right status and a sentence that says what is wrong, and disturbs nobody else.

use std::io::Write as _;
use std::time::Duration;

use prost::Message as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::eventually;
use tests_e2e::client::Client;
use tests_e2e::{Sightline, otlp};

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_explained_and_good_input_goes_on() {
    let sightline = Sightline::start(&[]).await;
    let admin = sightline.admin().await;
    the_gateway_explains(&sightline).await;
    the_api_explains(&admin).await;
    a_token_that_is_none_opens_nothing(&admin).await;
    let base = sightline.ingest_http();
    let good = otlp::logs("good", otlp::now(), ["still here".to_owned()]).encode_to_vec();
    let answer = post(&base, "/v1/logs", "application/x-protobuf", None, good).await;
    assert_eq!(answer.0, StatusCode::OK, "{}", answer.1);
    eventually("good input is stored", Duration::from_secs(20), async || {
        let page = admin.get("/api/v1/logs?contains=still%20here").await?;
        if page["items"].as_array().unwrap().len() == 1 { Ok(()) } else { Err(page.to_string()) }
    })
    .await;
}

async fn the_gateway_explains(sightline: &Sightline) {
    let base = sightline.ingest_http();
    let protobuf = "application/x-protobuf";
    let malformed = post(&base, "/v1/metrics", protobuf, None, vec![0x0a, 0xff, 0xff]).await;
    assert_eq!(malformed.0, StatusCode::BAD_REQUEST, "{}", malformed.1);
    let json = post(&base, "/v1/logs", "application/json", None, b"{\"resourceLogs\": 7}".to_vec()).await;
    assert_eq!(json.0, StatusCode::BAD_REQUEST, "{}", json.1);
    let kind = post(&base, "/v1/logs", "text/plain", None, b"hello".to_vec()).await;
    assert_eq!(kind.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{}", kind.1);
    let broken = post(&base, "/v1/logs", protobuf, Some("gzip"), b"no gzip".to_vec()).await;
    assert_eq!(broken.0, StatusCode::BAD_REQUEST, "{}", broken.1);
    let bomb = post(&base, "/v1/logs", protobuf, Some("gzip"), bomb()).await;
    assert_eq!(bomb.0, StatusCode::PAYLOAD_TOO_LARGE, "{}", bomb.1);
    let forged = reqwest::Client::new()
        .post(format!("{base}/v1/logs"))
        .bearer_auth("not.a.token")
        .header("content-type", protobuf)
        .body(Vec::new())
        .send()
        .await
        .unwrap();
    assert_eq!(forged.status(), StatusCode::UNAUTHORIZED);
}

/// 256 MiB of zeros in a few hundred kilobytes.
fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..256 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

async fn post(base: &str, path: &str, kind: &str, encoding: Option<&str>, body: Vec<u8>) -> (StatusCode, String) {
    let mut request = reqwest::Client::new().post(format!("{base}{path}")).header("content-type", kind).body(body);
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap_or_default())
}

async fn the_api_explains(admin: &Client) {
    let rule = |changes: Value| {
        let mut rule = json!({"name": "r", "level": "error", "metric": "a.b", "condition": "> 1", "match": "{}"});
        rule.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        rule
    };
    let cases = [
        (Method::POST, "/api/v1/rules", Some(rule(json!({"colour": "red"}))), 400, "colour"),
        (Method::POST, "/api/v1/rules", Some(rule(json!({"condition": "big"}))), 400, "condition"),
        (Method::POST, "/api/v1/rules", Some(rule(json!({"for": "soon"}))), 400, "for"),
        (Method::POST, "/api/v1/rules", Some(rule(json!({"match": "{a"}))), 400, "match"),
        (Method::POST, "/api/v1/receivers", Some(json!({"name": "x", "webhook": {"url": "ftp://x"}})), 400, "url"),
        (Method::GET, "/api/v1/logs?from=-1m&to=-1h", None, 400, "from"),
        (Method::GET, "/api/v1/logs?from=yesterday", None, 400, "yesterday"),
        (Method::GET, "/api/v1/logs?regex=(", None, 400, "regular expression"),
        (Method::GET, "/api/v1/logs?colour=red", None, 400, "colour"),
        (Method::GET, "/api/v1/resources?match=%7Ba", None, 400, "match"),
        (Method::GET, "/api/v1/resources/host-nobody", None, 404, "host-nobody"),
        (Method::GET, "/api/v1/rules/00000000-0000-0000-0000-000000000000", None, 404, "rule"),
        (Method::GET, "/api/v1/metrics/query?query=sum(", None, 400, "unexpected token"),
        (Method::GET, "/api/v1/nothing", None, 404, "route"),
        (Method::DELETE, "/api/v1/logs", None, 405, "method"),
    ];
    for (method, path, body, status, word) in cases {
        let answer = admin.ask(method.clone(), path, body.as_ref()).await;
        let (found, kind) = (answer.status(), answer.headers().get("content-type").cloned());
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(found.as_u16(), status, "{method} {path}: {problem}");
        assert_eq!(kind.unwrap(), "application/problem+json", "{method} {path}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{method} {path}: {problem}");
        assert!(problem["code"].is_string() && problem["request_id"].is_string(), "{problem}");
    }
    let prometheus = admin.ask(Method::GET, "/prometheus/api/v1/query?query=sum(", None).await;
    assert_eq!(prometheus.status(), StatusCode::BAD_REQUEST);
    assert_eq!(prometheus.json::<Value>().await.unwrap()["errorType"], "bad_data");
}

async fn a_token_that_is_none_opens_nothing(admin: &Client) {
    for token in ["", "nonsense", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."] {
        let stranger = admin.with_token(token);
        for path in ["/api/v1/resources", "/api/v1/logs", "/api/v1/status", "/prometheus/api/v1/query?query=up"] {
            let answer = stranger.ask(Method::GET, path, None).await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path} with `{token}`");
        }
    }
}
