//! The process stops while agents hold streams open.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use prost_types::Timestamp;
use proto::gosight::stream_payload::Payload;
use proto::gosight::stream_service_client::StreamServiceClient;
use proto::gosight::{ProcessInfo, ProcessPayload, ProcessWrapper, StreamPayload, StreamResponse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use crate::support::{Broker, Gateway, PATIENCE, gauge, knock, knock_from};

/// An open stream: what to send, and what comes back.
pub async fn open_stream(
    gateway: &Gateway,
    token: Option<&str>,
) -> (mpsc::Sender<StreamPayload>, Streaming<StreamResponse>) {
    let (sender, receiver) = mpsc::channel(8);
    let mut request = Request::new(ReceiverStream::new(receiver));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut client = StreamServiceClient::new(gateway.channel().await);
    (sender, client.stream(request).await.unwrap().into_inner())
}

pub fn snapshot(pid: i32) -> StreamPayload {
    let payload = ProcessPayload {
        agent_id: "a1".into(),
        host_id: "h1".into(),
        hostname: "web-1".into(),
        timestamp: Some(Timestamp { seconds: 1_790_000_000 + i64::from(pid), nanos: 0 }),
        processes: vec![ProcessInfo { pid, ..ProcessInfo::default() }],
        ..ProcessPayload::default()
    };
    let process = ProcessWrapper { raw_payload: payload.encode_to_vec() };
    StreamPayload { payload: Some(Payload::Process(process)) }
}

#[tokio::test]
async fn an_idle_stream_stays_open_until_the_process_stops_and_is_then_sent_away() {
    let gateway = Gateway::start().await;
    let token = testkit::tokens().agent(&gateway.tenant, "agent-7");
    let (idle, mut answers) = open_stream(&gateway, Some(&token)).await;
    let (busy, mut busy_answers) = open_stream(&gateway, None).await;
    busy.send(snapshot(1)).await.unwrap();
    assert_eq!(busy_answers.message().await.unwrap().unwrap().status_code, 200);

    let mut client = gateway.metrics().await;
    client.export(gauge(&[("host.id", "h1")], 1)).await.unwrap();
    let stopping = gateway.process.stop();
    let watching = async {
        for answers in [&mut answers, &mut busy_answers] {
            let last = answers.message().await.unwrap().unwrap();
            let command = last.command.unwrap();
            assert_eq!((command.command_type.as_str(), command.command.as_str()), ("control", "disconnect"));
            assert!(answers.message().await.unwrap().is_none());
        }
        drop((idle, busy));
    };
    tokio::join!(stopping, watching);
}

#[tokio::test]
async fn a_client_that_hangs_does_not_hold_up_the_stop() {
    let gateway = Gateway::start().await;
    let url: http::Uri = gateway.url("/v1/logs").parse().unwrap();
    let mut hanging = TcpStream::connect(url.authority().unwrap().as_str()).await.unwrap();
    let head =
        "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 9\r\n\r\nhalf";
    hanging.write_all(head.as_bytes()).await.unwrap();
    let mut client = gateway.metrics().await;
    client.export(gauge(&[("host.id", "h1")], 1)).await.unwrap();
    gateway.process.stop().await;
    // It was cut off; a stop that had run into its deadline would have left it as it was.
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, hanging.read_to_end(&mut rest)).await.expect("it is cut off").unwrap_or_default();
}

/// Waits until a connection that was opened now has gone for its age.
async fn outlive_another(gateway: &Gateway) {
    let mut other = knock(gateway.addresses.http).await;
    let head = "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    other.write_all(head.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    other.read_to_end(&mut all).await.unwrap();
    assert!(all.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_connection_with_a_stream_of_an_agent_has_no_age() {
    let arguments = ["--anonymous-networks", "127.0.0.0/8", "--connection-max-age", "1s"];
    let gateway = Gateway::start_with(&testkit::namespace(), &arguments).await;
    let io = TokioIo::new(knock(gateway.addresses.grpc).await);
    let (mut connection, work) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let mut at_work = tokio::task::JoinSet::new();
    at_work.spawn(work);
    let call = |path: &str| {
        let (frames, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(8);
        let body = StreamBody::new(ReceiverStream::new(receiver));
        let request = http::Request::post(format!("http://{}{path}", gateway.addresses.grpc));
        (frames, request.header("content-type", "application/grpc").body(body).unwrap())
    };
    let (frames, request) = call("/proto.StreamService/Stream");
    let mut answers = connection.send_request(request).await.unwrap().into_body();
    for pid in 1..=3 {
        let message = snapshot(pid).encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let frame = [&[0][..], &length, &message].concat();
        frames.send(Ok(Frame::data(frame.into()))).await.unwrap();
        assert!(answers.frame().await.unwrap().unwrap().is_data(), "snapshot {pid} is answered");
        outlive_another(&gateway).await;
        // After a farewell it would take no more requests.
        let (_, request) = call("/nothing");
        connection.send_request(request).await.unwrap();
    }
    drop((frames, answers, connection));
    at_work.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_fault_that_passes_does_not_end_a_stream_of_an_agent() {
    let mut broker = Broker::started();
    let settings = broker.settings();
    let gateway = Gateway::start_with(&settings, &["--anonymous-networks", "127.0.0.0/8"]).await;
    let (sender, mut answers) = open_stream(&gateway, None).await;
    sender.send(snapshot(1)).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().status_code, 200);

    broker.kill();
    sender.send(snapshot(2)).await.unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.status_code, 503, "{}", answer.status);
    broker.start();
    testkit::eventually("the stream to work again", PATIENCE, async || {
        sender.send(snapshot(3)).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        if answer.status_code == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_passed_over_and_the_stream_goes_on() {
    let gateway = Gateway::start().await;
    let (sender, mut answers) = open_stream(&gateway, None).await;
    let large = ProcessWrapper { raw_payload: vec![0; 3 << 20] };
    sender.send(StreamPayload { payload: Some(Payload::Process(large)) }).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().status_code, 413);
    // Half a million processes of two bytes would be hundreds of megabytes once they are read.
    let many = ProcessWrapper { raw_payload: [0x32, 0].repeat(500_000) };
    sender.send(StreamPayload { payload: Some(Payload::Process(many)) }).await.unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(answer.status_code == 413 && answer.status.contains("processes"), "{answer:?}");
    let mut tap = gateway.tap(bus::Stream::Processes).await;
    let most = ProcessWrapper { raw_payload: [0x32, 0].repeat(20_000) };
    sender.send(StreamPayload { payload: Some(Payload::Process(most)) }).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().status_code, 200);
    let body = tap.next().await.body;
    assert!(body.len() < 4 * 40_000, "{} bytes", body.len());
}

#[tokio::test]
async fn a_snapshot_waits_for_room_and_the_stream_goes_on() {
    let arguments = ["--anonymous-networks", "127.0.0.0/8", "--ingest-in-flight-bytes", "5MiB"];
    let gateway = Gateway::start_with(&testkit::namespace(), &arguments).await;
    let (sender, mut answers) = open_stream(&gateway, None).await;
    let mut guests = fill(&gateway, |guest| 10 + guest / 10).await;
    sender.send(large_snapshot()).await.unwrap();
    let mut answer = Box::pin(answers.message());
    // Others are sent away as long as there is no room; the snapshot is neither lost nor answered.
    testkit::eventually("a full house", PATIENCE, async || {
        let outcome = gateway.metrics().await.export(gauge(&[("host.id", "h1")], 10_000)).await;
        if outcome.is_err() { Ok(()) } else { Err("there is room") }
    })
    .await;
    assert!(futures::poll!(&mut answer).is_pending());
    guests.clear();
    assert_eq!(answer.await.unwrap().unwrap().status_code, 200);
}

#[tokio::test]
async fn a_sender_whose_messages_never_end_leaves_room_to_others() {
    let arguments = ["--anonymous-networks", "127.0.0.0/8", "--ingest-in-flight-bytes", "5MiB"];
    let gateway = Gateway::start_with(&testkit::namespace(), &arguments).await;
    let mut guests = fill(&gateway, |_| 10).await;
    // Those that were too many were told so.
    let mut refused = 0;
    for guest in &mut guests {
        let mut answer = [0; 12];
        let told = tokio::time::timeout(Duration::from_millis(100), guest.read_exact(&mut answer)).await;
        refused += usize::from(told.is_ok() && &answer == b"HTTP/1.1 503");
    }
    assert!((40..80).contains(&refused), "{refused} were sent away");
    gateway.metrics().await.export(gauge(&[("host.id", "h1")], 10_000)).await.unwrap();
}

/// Clients that have sent nearly all of a message, and so have the room that it needs; more of them than there is room for.
/// `host` says where each comes from.
async fn fill(gateway: &Gateway, host: impl Fn(u8) -> u8) -> Vec<TcpStream> {
    let mut guests = Vec::new();
    for guest in 0..80 {
        let mut guest = knock_from(host(guest), gateway.addresses.http).await;
        let head = "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 131072\r\n\r\n";
        guest.write_all(head.as_bytes()).await.unwrap();
        guest.write_all(&[0; 131_071]).await.unwrap();
        guests.push(guest);
    }
    guests
}

/// One of some 600 KB.
fn large_snapshot() -> StreamPayload {
    let one = |pid| ProcessInfo { pid, cmdline: "x".repeat(10_000), ..ProcessInfo::default() };
    let payload =
        ProcessPayload { host_id: "h1".into(), processes: (0..60).map(one).collect(), ..ProcessPayload::default() };
    let process = ProcessWrapper { raw_payload: payload.encode_to_vec() };
    StreamPayload { payload: Some(Payload::Process(process)) }
}

#[tokio::test]
async fn an_agent_without_snapshots_is_just_left_when_the_process_stops() {
    let gateway = Gateway::start().await;
    let (_idle, mut answers) = open_stream(&gateway, None).await;
    let (stopped, last) = tokio::join!(gateway.process.stop(), answers.message());
    let () = stopped;
    assert_eq!(last.unwrap(), None);
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_is_answered_and_the_stream_goes_on() {
    let gateway = Gateway::start().await;
    let (sender, mut answers) = open_stream(&gateway, None).await;
    let broken = ProcessWrapper { raw_payload: vec![0x0a, 0xff] };
    sender.send(StreamPayload { payload: Some(Payload::Process(broken)) }).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().status_code, 400);
    sender.send(snapshot(1)).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().status_code, 200);
}
