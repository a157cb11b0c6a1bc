//! What comes in goes on: as it was, with a name, and once.

use bus::{From as Place, Stream};
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, Sum};
use prost::Message as _;
use proto::registry::ResourceSeen;
use proto::telemetry::ProcessBatch;
use tonic::Request;

use crate::support::{Gateway, PATIENCE, attributes, gauge, lines, logs_in, metrics, metrics_in, value_of};

const HOST: [(&str, &str); 3] = [("host.id", "h1"), ("host.name", "web-1"), ("agent.id", "a1")];

#[tokio::test]
async fn metrics_pass_with_the_resource_named() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Metrics).await;
    let mut sent = gauge(&[&HOST[..], &[("sightline.resource.id", "forged")]].concat(), 3);
    let answer = gateway.metrics().await.export(sent.clone()).await.unwrap().into_inner();
    assert_eq!(answer.partial_success, None);

    let envelope = tap.next().await;
    assert_eq!((envelope.tenant.as_str(), envelope.items), (gateway.tenant.as_str(), 3));
    let mut passed = metrics_in(&envelope);
    let stamped = attributes(passed[0].resource.as_ref());
    let expected = model::identify(&gateway.tenant, HOST).id.to_string();
    assert_eq!(value_of(&stamped, "sightline.resource.id"), expected);
    assert_eq!(value_of(&stamped, "sightline.resource.kind"), "host");
    assert_eq!(value_of(&stamped, "sightline.agent.id"), "a1");
    assert_eq!(value_of(&stamped, "host.name"), "web-1");
    (passed[0].resource, sent.resource_metrics[0].resource) = (None, None);
    assert_eq!(passed, sent.resource_metrics);
}

#[tokio::test]
async fn logs_carry_a_batch_that_a_retry_repeats() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Logs).await;
    let mut client = gateway.logs().await;
    let mut batches = Vec::new();
    for request in [lines(&HOST, &["a"]), lines(&HOST, &["a"]), lines(&HOST, &["b"])] {
        client.export(request).await.unwrap();
        let stamped = attributes(logs_in(&tap.next().await)[0].resource.as_ref());
        assert_eq!(value_of(&stamped, "sightline.batch.part"), "0");
        batches.push(value_of(&stamped, "sightline.batch.id"));
    }
    assert_eq!(batches[0], batches[1]);
    assert_ne!(batches[0], batches[2]);

    // Of a request that comes again, less may be taken: by other limits, or a minute later.
    let other = ["--anonymous-networks", "127.0.0.0/8", "--log-retention", "1h"];
    let other = Gateway::start_with(&testkit::namespace(), &other).await;
    let mut others = other.tap(Stream::Logs).await;
    let mut request = lines(&HOST, &["old"]);
    let line = &mut request.resource_logs[0].scope_logs[0].log_records[0];
    line.time_unix_nano -= 7_200_000_000_000;
    request.resource_logs.extend(lines(&[("host.id", "h2")], &["new"]).resource_logs);
    client.export(request.clone()).await.unwrap();
    other.logs().await.export(request).await.unwrap();
    let mut all = logs_in(&tap.next().await);
    if all.len() == 1 {
        all.extend(logs_in(&tap.next().await));
    }
    let again = logs_in(&others.next().await);
    let stamps = |of: &[ResourceLogs], host: &str| {
        let all = of.iter().map(|one| attributes(one.resource.as_ref()));
        let one = all.into_iter().find(|stamped| value_of(stamped, "host.id") == host).unwrap();
        (value_of(&one, "sightline.batch.id"), value_of(&one, "sightline.batch.part"))
    };
    assert_eq!(again.len(), 1);
    assert_eq!(stamps(&all, "h2"), stamps(&again, "h2"));
    assert_ne!(stamps(&all, "h2"), stamps(&all, "h1"));

    let numbered = lines(&HOST, &["c"]);
    let bytes = prost::Message::encode_to_vec(&numbered);
    let mut numbered = Request::new(numbered);
    numbered.metadata_mut().insert("sightline-batch", "b00t-7".parse().unwrap());
    client.export(numbered).await.unwrap();
    let stamped = attributes(logs_in(&tap.next().await)[0].resource.as_ref());
    let expected = model::BatchId::from_agent("a1", model::ClientBatch { boot: "b00t", sequence: 7 }, &bytes);
    assert_eq!(value_of(&stamped, "sightline.batch.id"), expected.to_string());
}

#[tokio::test]
async fn a_request_that_is_too_large_for_a_message_is_split_into_numbered_parts() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Logs).await;
    let line = "x".repeat(90_000);
    gateway.logs().await.export(lines(&HOST, &[line.as_str(); 10])).await.unwrap();
    let mut parts = Vec::new();
    let mut records = 0;
    while records < 10 {
        let envelope = tap.next().await;
        assert!(envelope.body.len() <= 512 << 10);
        for one in logs_in(&envelope) {
            records += one.scope_logs.iter().map(|scope| scope.log_records.len()).sum::<usize>();
            assert_eq!(one.scope_logs[0].scope.as_ref().unwrap().name, "sshd");
            parts.push(value_of(&attributes(one.resource.as_ref()), "sightline.batch.part"));
        }
    }
    assert_eq!((records, parts), (10, vec!["0".to_owned(), "1".to_owned()]));
}

#[tokio::test]
async fn what_is_refused_of_a_request_is_said_and_the_rest_passes() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Metrics).await;
    let sum = |name: &str, aggregation_temporality| Metric {
        name: name.into(),
        data: Some(Data::Sum(Sum {
            data_points: vec![
                NumberDataPoint {
                    value: Some(number_data_point::Value::AsInt(1)),
                    ..NumberDataPoint::default()
                };
                2
            ],
            aggregation_temporality,
            is_monotonic: true,
        })),
        ..Metric::default()
    };
    let request = metrics(&HOST, vec![sum("delta", 1), sum("cumulative", 2)]);
    let answer = gateway.metrics().await.export(request).await.unwrap().into_inner();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_data_points, 2);
    assert!(partial.error_message.contains("cumulative"), "{}", partial.error_message);
    let passed = metrics_in(&tap.next().await);
    assert_eq!(passed[0].scope_metrics[0].metrics.iter().map(|m| &m.name).collect::<Vec<_>>(), ["cumulative"]);
}

#[tokio::test]
async fn http_takes_protobuf_and_json_packed_or_not() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Logs).await;
    let http = reqwest::Client::new();
    let protobuf = lines(&HOST, &["a"]).encode_to_vec();
    let json = br#"{"resourceLogs": [{"resource": {"attributes": [{"key": "host.id", "value": {"stringValue": "h1"}}]},
        "scopeLogs": [{"logRecords": [{"observedTimeUnixNano": 0, "body": {"stringValue": "b"},
        "traceId": "0102030405060708090a0b0c0d0e0f10", "unheardOf": 1}]}]}]}"#
        .to_vec();
    for (kind, packing, body) in [
        ("application/x-protobuf", "identity", protobuf.clone()),
        ("application/x-protobuf", "zstd", zstd::bulk::compress(&protobuf, 1).unwrap()),
        ("application/json", "identity", json),
    ] {
        let request =
            http.post(gateway.url("/v1/logs")).header("content-type", kind).header("content-encoding", packing);
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{kind} {packing}");
        assert_eq!(answer.headers()["content-type"], kind);
        let warning = r#"{"partialSuccess":{"errorMessage":"fields that OTLP does not know were passed over: resourceLogs[0].scopeLogs[0].logRecords[0].unheardOf"}}"#;
        let expected = if kind.ends_with("json") { warning } else { "" };
        assert_eq!(answer.text().await.unwrap(), expected);
        assert_eq!(tap.next().await.items, 1);
    }
}

#[tokio::test]
async fn the_registry_hears_of_a_host_and_its_agent_and_redis_of_their_lives() {
    let gateway = Gateway::start().await;
    let mut seen = gateway.bus.follow(Stream::Resources, Place::New).await;
    gateway.metrics().await.export(gauge(&HOST, 1)).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        let delivery = tokio::time::timeout(PATIENCE, seen.next()).await.expect("nothing was told");
        told.push(ResourceSeen::decode(delivery.payload().clone()).unwrap());
    }
    told.sort_by(|a, b| a.kind.cmp(&b.kind));
    let [agent, host] = &told[..] else { unreachable!("two") };
    assert_eq!((agent.kind.as_str(), host.kind.as_str()), ("agent", "host"));
    assert_eq!(host.parent_id, agent.id);
    assert_eq!(host.labels["host.name"], "web-1");

    let key = format!("{}:heartbeats:{}", gateway.bus.settings().namespace, gateway.tenant);
    let mut redis =
        redis::Client::open(testkit::redis_url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let alive: Vec<String> = testkit::eventually("heartbeats", PATIENCE, async || {
        let alive: Vec<String> =
            redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).query_async(&mut redis.clone()).await.unwrap();
        if alive.len() == 2 { Ok(alive) } else { Err(format!("{alive:?}")) }
    })
    .await;
    assert!(alive.contains(&agent.id) && alive.contains(&host.id));
    let _: () = redis::cmd("DEL").arg(&key).query_async(&mut redis).await.unwrap();
}

#[tokio::test]
async fn a_process_snapshot_is_answered_when_it_is_safe() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Processes).await;
    let (sender, mut answers) = crate::drain::open_stream(&gateway, None).await;
    for pid in 1..=2 {
        sender.send(crate::drain::snapshot(pid)).await.unwrap();
    }
    for pid in 1..=2 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.status.as_str(), answer.status_code), ("ok", 200));
        let batch = ProcessBatch::decode(tap.next().await.body).unwrap();
        let snapshot = &batch.snapshots[0];
        assert_eq!(snapshot.processes[0].pid, pid);
        assert_eq!(snapshot.resource_id, model::identify(&gateway.tenant, HOST).id.to_string());
        assert_eq!((snapshot.agent_id.as_str(), snapshot.batch_id.len()), ("a1", 16));
    }
}

#[tokio::test]
async fn many_at_once_share_envelopes_and_each_is_answered() {
    let gateway = Gateway::start().await;
    let client = gateway.metrics().await;
    let mut exports = tokio::task::JoinSet::new();
    for n in 0..200 {
        let mut client = client.clone();
        exports.spawn(async move {
            let host = format!("h{}", n % 4);
            client.export(gauge(&[("host.id", &host)], 50)).await.map(drop)
        });
    }
    while let Some(export) = exports.join_next().await {
        export.unwrap().unwrap();
    }
    let envelopes = gateway.count(Stream::Metrics).await;
    assert!(envelopes < 200, "{envelopes} envelopes for 200 requests");
}
