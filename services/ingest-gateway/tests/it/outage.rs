//! The broker or its room goes away.

use bus::{Options, Stream};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Broker, Gateway, PATIENCE, gauge, lines};

const HOST: [(&str, &str); 1] = [("host.id", "h1")];

#[tokio::test]
async fn nothing_is_acknowledged_that_the_broker_does_not_have() {
    let mut broker = Broker::started();
    let settings = broker.settings();
    let gateway = Gateway::start_with(&settings, &["--anonymous-networks", "127.0.0.0/8"]).await;
    let mut client = gateway.metrics().await;
    client.export(gauge(&HOST, 1)).await.unwrap();
    broker.kill();

    let status = client.export(gauge(&HOST, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some());
    let answer = reqwest::Client::new()
        .post(gateway.url("/v1/logs"))
        .header("content-type", "application/x-protobuf")
        .body(prost::Message::encode_to_vec(&lines(&HOST, &["a"])))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(gateway.process.missing().contains_key("broker"), "{:?}", gateway.process.missing());

    broker.start();
    testkit::eventually("taking data again", PATIENCE, async || client.clone().export(gauge(&HOST, 1)).await).await;
    let stored = gateway.count(Stream::Metrics).await;
    // Of what was answered with UNAVAILABLE nothing may be there that was not sent again, except what was under way.
    assert!((2..=3).contains(&stored), "{stored} envelopes");
}

#[tokio::test]
async fn new_data_is_refused_while_the_writer_is_too_far_behind() {
    let gateway = Gateway::start().await;
    // The writer that is behind: it reads and never answers.
    let shards = [0, 1];
    let mut writers = shards.map(|shard| gateway.bus.consume(Stream::Logs(shard), "log-writer", Options::default()));
    let mut client = gateway.logs().await;
    client.export(lines(&HOST, &["the first"])).await.unwrap();
    let [one, other] = &mut writers;
    tokio::select! {
        _ = one.next() => {}
        _ = other.next() => {}
    }
    // Hardly compressible, so that it fills the stream of 16 MiB as it is; and little, so that the gateway looks at the stream
    // again before what is left of it is full.
    let noise = || {
        let words: Vec<String> = (0..4_000).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
        words.concat()
    };
    let status = testkit::eventually("refusing", PATIENCE, async || {
        let noise = noise();
        let parts: Vec<&str> =
            noise.as_bytes().chunks(100_000).map(|part| std::str::from_utf8(part).unwrap()).collect();
        match client.export(lines(&HOST, &parts)).await {
            Ok(_) => Err("taken"),
            Err(status) => Ok(status),
        }
    })
    .await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("behind"), "{}", status.message());
    // Another signal has its own streams.
    gateway.metrics().await.export(gauge(&HOST, 1)).await.unwrap();
    let accounts = gateway.bus.account().await.unwrap();
    let logs: Vec<_> = accounts.iter().filter(|account| account.stream.contains("LOGS")).collect();
    assert!(logs.iter().any(|account| account.received > 10), "{logs:?}");
    // What nobody has stored is all still there.
    assert!(logs.iter().all(|account| account.lost == 0 && account.first_sequence <= 1), "{logs:?}");
}

#[tokio::test]
async fn telemetry_is_taken_while_redis_is_away() {
    let settings = testkit::namespace();
    let arguments = ["--anonymous-networks", "127.0.0.0/8"];
    let nowhere = Gateway::start_elsewhere(&settings, &arguments, "redis://127.0.0.1:1").await;
    nowhere.metrics().await.export(gauge(&HOST, 1)).await.unwrap();
    assert!(nowhere.process.missing().is_empty(), "{:?}", nowhere.process.missing());
}

#[tokio::test]
async fn what_the_broker_will_never_take_is_not_to_be_sent_again() {
    let broker = Broker::configured("max_payload: 64KB");
    let gateway = Gateway::start_with(&broker.settings(), &["--anonymous-networks", "127.0.0.0/8"]).await;
    let noise: String = (0..5_000).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    let mut client = gateway.logs().await;
    let status = client.export(lines(&HOST, &[noise.as_str()])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("smaller batches"), "{}", status.message());
    client.export(lines(&HOST, &["a"])).await.unwrap();
}
