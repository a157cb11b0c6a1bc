//! Each bad message gets its own answer, and nobody else notices.

use std::io::Write as _;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Gateway, PATIENCE, gauge, knock, knock_from, lines};

const HOST: [(&str, &str); 1] = [("host.id", "h1")];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A gRPC message with its frame.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, message].concat()
}

/// Calls the metrics service with a raw body; gives `grpc-status` and `grpc-message`.
async fn call(gateway: &Gateway, encoding: &str, body: Vec<u8>) -> (String, String) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri =
        format!("http://{}/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", gateway.addresses.grpc);
    let request = http::Request::post(uri).header("content-type", "application/grpc").header("grpc-encoding", encoding);
    let answer = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let headers = answer.headers().clone();
    let body = answer.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let text = |name: &str| {
        let value = headers.get(name).or_else(|| trailers.get(name));
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    (text("grpc-status"), text("grpc-message"))
}

const OK: &str = "0";
const INVALID: &str = "3";
const UNIMPLEMENTED: &str = "12";
const UNAVAILABLE: &str = "14";

#[tokio::test]
async fn bad_grpc_messages_are_told_apart() {
    let gateway = Gateway::start().await;
    let good = gauge(&HOST, 3).encode_to_vec();
    let bomb = gzip(&vec![0; 64 << 20]);
    let mut short = framed(0, &good);
    short.truncate(40);
    let cases = [
        ("good", "identity", framed(0, &good), OK, ""),
        ("good and packed", "gzip", framed(1, &gzip(&good)), OK, ""),
        ("good and not packed after all", "gzip", framed(0, &good), OK, ""),
        ("zstd", "zstd", framed(1, &zstd::bulk::compress(&good, 1).unwrap()), OK, ""),
        ("malformed", "identity", framed(0, &[0x0a, 0xff, 0xff]), INVALID, "malformed"),
        ("broken gzip", "gzip", framed(1, b"no gzip at all"), INVALID, "unpacked"),
        ("bomb", "gzip", framed(1, &bomb), INVALID, "larger%20than"),
        ("oversized", "identity", framed(0, &vec![0; 3 << 20]), INVALID, "larger%20than"),
        ("no message", "identity", Vec::new(), INVALID, "no%20message"),
        ("cut off", "identity", short, INVALID, "within%20a%20message"),
        ("two messages", "identity", [framed(0, &good), framed(0, &good)].concat(), INVALID, "more%20than%20one"),
        ("packed without saying how", "identity", framed(1, &good), INVALID, "grpc-encoding"),
        ("unknown packing", "lzma", framed(1, &good), UNIMPLEMENTED, "gzip"),
        ("good again", "identity", framed(0, &good), OK, ""),
    ];
    for (name, encoding, body, status, message) in cases {
        let answer = call(&gateway, encoding, body).await;
        let told = answer.1.replace(' ', "%20");
        assert!(answer.0 == status && told.contains(message), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn bad_http_messages_are_told_apart() {
    let gateway = Gateway::start().await;
    let good = lines(&HOST, &["a"]).encode_to_vec();
    let (protobuf, json) = ("application/x-protobuf", "application/json");
    let cases: [(&str, &str, &str, Vec<u8>, u16); 9] = [
        ("good", protobuf, "gzip", gzip(&good), 200),
        ("malformed", protobuf, "identity", vec![0x0a, 0xff, 0xff], 400),
        ("malformed JSON", json, "identity", b"{\"resourceLogs\": 7}".to_vec(), 400),
        ("broken gzip", protobuf, "gzip", b"no gzip".to_vec(), 400),
        ("bomb", protobuf, "gzip", gzip(&vec![0; 64 << 20]), 413),
        ("oversized", protobuf, "identity", vec![0; 3 << 20], 413),
        ("unknown packing", protobuf, "br", good.clone(), 415),
        ("unknown type", "text/plain", "identity", good.clone(), 415),
        ("good again", protobuf, "identity", good.clone(), 200),
    ];
    let http = reqwest::Client::new();
    for (name, kind, packing, body, status) in cases {
        let request =
            http.post(gateway.url("/v1/logs")).header("content-type", kind).header("content-encoding", packing);
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{name}");
        if status != 200 && kind != "text/plain" {
            assert_eq!(answer.headers()["content-type"], kind, "{name}");
            let body = answer.bytes().await.unwrap();
            let told = if kind == json {
                serde_json::from_slice::<serde_json::Value>(&body).unwrap()["message"].to_string()
            } else {
                tonic_types::pb::Status::decode(body).unwrap().message
            };
            assert!(told.len() > 10, "{name}: {told}");
        }
    }
    assert_eq!(http.get(gateway.url("/v1/logs")).send().await.unwrap().status(), 405);
    assert_eq!(http.get(gateway.url("/nothing")).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_full_house_sends_newcomers_away_before_unpacking() {
    let arguments = ["--anonymous-networks", "127.0.0.0/8", "--ingest-in-flight-bytes", "5MiB"];
    let gateway = Gateway::start_with(&testkit::namespace(), &arguments).await;
    // Clients that have sent nearly all of a message take the room that it needs.
    let mut guests = Vec::new();
    for host in 10..14 {
        let mut guest = knock_from(host, gateway.addresses.http).await;
        let head = "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 1000000\r\n\r\n";
        guest.write_all(head.as_bytes()).await.unwrap();
        guest.write_all(&vec![0; 999_999]).await.unwrap();
        guests.push(guest);
    }
    let newcomer = framed(1, &gzip(&vec![0; 2 << 20]));
    testkit::eventually("being sent away", PATIENCE, async || {
        let answer = call(&gateway, "gzip", newcomer.clone()).await;
        if answer.0 == UNAVAILABLE { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(call(&gateway, "identity", framed(0, &gauge(&HOST, 3).encode_to_vec())).await.0, OK);
    drop(guests);
    testkit::eventually("room again", PATIENCE, async || {
        let answer = call(&gateway, "gzip", newcomer.clone()).await;
        if answer.0 == INVALID { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

#[tokio::test]
async fn other_methods_and_services_say_that_they_are_not_there() {
    let gateway = Gateway::start().await;
    let mut traces = opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient::new(
        gateway.channel().await,
    );
    let status = traces.export(opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest::default());
    assert_eq!(status.await.unwrap_err().code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn who_takes_one_port_for_the_other_is_told_so() {
    let gateway = Gateway::start().await;
    let mut client = knock(gateway.addresses.grpc).await;
    let head = "POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\ncontent-length: 2\r\nconnection: close\r\n\r\nxx";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 415") && answer.contains("4318"), "{answer}");

    let url = format!("http://{}", gateway.addresses.http);
    let channel = tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut logs = LogsServiceClient::new(channel);
    let status = logs.export(lines(&HOST, &["a"])).await.unwrap_err();
    assert!(status.code() == tonic::Code::Unimplemented && status.message().contains("4317"), "{status}");
    for reason in ["encoding", "unknown_path"] {
        let metric = format!("sightline_ingest_gateway_requests_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&metric), 1, "{reason}");
    }
}
