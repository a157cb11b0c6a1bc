//! What clients in the field do, and how they learn what was wrong.

use bus::Stream;
use prost::Message as _;
use tonic::Code;
use tonic_types::pb::Status;

use crate::support::{Gateway, gauge, lines, metrics_in};

const HOST: [(&str, &str); 1] = [("host.id", "h1")];
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn zlib(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn names_of_encodings_are_taken_in_any_case() {
    let gateway = Gateway::start().await;
    let http = reqwest::Client::new();
    let body = lines(&HOST, &["a"]).encode_to_vec();
    for (kind, packing, body) in [
        ("Application/X-Protobuf", "Identity", body.clone()),
        (PROTOBUF, "Deflate", zlib(&body)),
        (PROTOBUF, "ZSTD", zstd::bulk::compress(&body, 1).unwrap()),
        ("application/JSON; charset=utf-8", "identity", b"{}".to_vec()),
    ] {
        let request = http.post(gateway.url("/v1/logs")).header("content-type", kind);
        let answer = request.header("content-encoding", packing).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{kind} {packing}");
    }
    let request = http.post(gateway.url("/v1/logs")).header("content-type", PROTOBUF);
    let answer = request.header("content-encoding", "gzip, gzip").body(body).send().await.unwrap();
    assert_eq!(answer.status(), 415);
    assert_eq!(answer.headers()["accept-encoding"], "gzip, deflate, zstd");
}

#[tokio::test]
async fn every_error_is_a_status_in_the_encoding_of_the_request_with_the_right_path() {
    let gateway = Gateway::start().await;
    let http = reqwest::Client::new();
    for (method, path, kind, code, hint) in [
        ("POST", "/v1/logs/", PROTOBUF, 404, "POST /v1/logs"),
        ("POST", "//v1/logs", JSON, 404, "POST /v1/logs"),
        ("POST", "/v1/logs/v1/logs", JSON, 404, "POST /v1/logs"),
        ("POST", "/v1/Metrics", PROTOBUF, 404, "POST /v1/metrics"),
        ("POST", "/", JSON, 404, "POST /v1/metrics or POST /v1/logs"),
        ("GET", "/v1/logs", JSON, 405, "POST /v1/logs"),
        ("POST", "/v1/traces", PROTOBUF, 501, "traces"),
        ("POST", "/v1/logs", "text/plain", 415, "content-type"),
        ("POST", "/v1/logs", "", 415, "content-type"),
    ] {
        let mut request = http.request(method.parse().unwrap(), gateway.url(path)).body("x");
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), code, "{method} {path} {kind}");
        if code == 405 {
            assert_eq!(answer.headers()["allow"], "POST");
        }
        let expected = if kind == PROTOBUF { PROTOBUF } else { JSON };
        assert_eq!(answer.headers()["content-type"], expected, "{method} {path}");
        let body = answer.bytes().await.unwrap();
        let (number, message) = if kind == PROTOBUF {
            let status = Status::decode(body).unwrap();
            (i64::from(status.code), status.message)
        } else {
            let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
            (status["code"].as_i64().unwrap(), status["message"].as_str().unwrap().to_owned())
        };
        assert!(number > 0 && message.contains(hint), "{method} {path}: {message}");
    }
}

#[tokio::test]
async fn a_method_that_is_not_there_is_named() {
    let gateway = Gateway::start().await;
    let mut client = tonic::client::Grpc::new(gateway.channel().await);
    client.ready().await.unwrap();
    let codec: tonic_prost::ProstCodec<(), ()> = tonic_prost::ProstCodec::default();
    let path = http::uri::PathAndQuery::from_static("/proto.MetricsService/SubmitMetrics");
    let status = client.unary(tonic::Request::new(()), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("/proto.MetricsService/SubmitMetrics"), "{}", status.message());
}

#[tokio::test]
async fn malformed_text_is_named_with_message_and_field() {
    let gateway = Gateway::start().await;
    let mut body = lines(&HOST, &["first", "second"]).encode_to_vec();
    let at = body.windows(6).position(|window| window == b"second").unwrap();
    body[at] = 0xff;
    let request = reqwest::Client::new().post(gateway.url("/v1/logs")).header("content-type", PROTOBUF);
    let answer = request.body(body).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let message = Status::decode(answer.bytes().await.unwrap()).unwrap().message;
    assert!(message.contains("log_records[1].body.string_value in AnyValue: a string is not UTF-8"), "{message}");
}

#[tokio::test]
async fn a_body_that_stalls_may_be_sent_again() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let arguments = ["--anonymous-networks", "127.0.0.0/8", "--body-pause", "200ms"];
    let gateway = Gateway::start_with(&testkit::namespace(), &arguments).await;
    let mut client = crate::support::knock(gateway.addresses.http).await;
    let head =
        "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 9\r\n\r\nhalf";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 503");
}

#[tokio::test]
async fn browsers_may_send_from_pages_that_are_listed() {
    let arguments = ["--anonymous-networks", "127.0.0.0/8", "--cors-origins", "https://shop.example"];
    let gateway = Gateway::start_with(&testkit::namespace(), &arguments).await;
    let http = reqwest::Client::new();
    let preflight = async |gateway: &Gateway, origin: &str| {
        let request = http.request(http::Method::OPTIONS, gateway.url("/v1/logs")).header("origin", origin);
        request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,authorization")
            .send()
            .await
            .unwrap()
    };
    let allowed = preflight(&gateway, "https://shop.example").await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://shop.example");
    let other = preflight(&gateway, "https://other.example").await;
    assert!(!other.headers().contains_key("access-control-allow-origin"));
    let request = http.post(gateway.url("/v1/logs")).header("origin", "https://shop.example");
    let sent = request.header("content-type", JSON).body("{}").send().await.unwrap();
    assert_eq!(sent.headers()["access-control-allow-origin"], "https://shop.example");

    let closed = Gateway::start().await;
    assert_eq!(preflight(&closed, "https://shop.example").await.status(), 405);
}

#[tokio::test]
async fn replicas_of_a_service_without_an_instance_id_are_two_resources() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Metrics).await;
    let mut ids = std::collections::BTreeSet::new();
    for pod in ["a", "b", "a"] {
        let request = gauge(&[("service.name", "shop"), ("k8s.pod.uid", pod)], 1);
        gateway.metrics().await.export(request).await.unwrap();
        let passed = metrics_in(&tap.next().await);
        let stamped = crate::support::attributes(passed[0].resource.as_ref());
        ids.insert(crate::support::value_of(&stamped, "sightline.resource.id"));
    }
    assert_eq!(ids.len(), 2);
}

#[tokio::test]
async fn no_line_is_lost_for_a_wrong_clock_but_one_that_no_store_would_keep_is_refused() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Logs).await;
    let day = 86_400 * 1_000_000_000;
    let mut request = lines(&HOST, &["now", "in a year", "at the end of time", "forty days ago", "without a time"]);
    let records = &mut request.resource_logs[0].scope_logs[0].log_records;
    records[1].time_unix_nano += 365 * day;
    records[2].time_unix_nano = u64::MAX;
    records[3].time_unix_nano -= 40 * day;
    records[4].time_unix_nano = 0;
    let answer = gateway.logs().await.export(request).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(answer.rejected_log_records, 1);
    assert!(answer.error_message.contains("before what is kept"), "{}", answer.error_message);
    assert_eq!(tap.next().await.items, 4);
}
