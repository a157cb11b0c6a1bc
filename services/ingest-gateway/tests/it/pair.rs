//! Two gateways of one installation.

use std::collections::BTreeSet;

use bus::Stream;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;

use crate::support::{Gateway, attributes, lines, logs_in, value_of};

#[tokio::test]
async fn the_same_request_through_either_is_the_same_batch_in_the_same_shard() {
    let settings = testkit::namespace();
    let one = Gateway::start_with(&settings, &["--anonymous-networks", "127.0.0.0/8"]).await;
    let other = one.another(&settings).await;
    let mut tap = one.tap(Stream::Logs).await;
    // Sixteen hosts, so that both shards have some.
    let request = ExportLogsServiceRequest {
        resource_logs: (0..16).flat_map(|n| lines(&[("host.id", &n.to_string())], &["a", "b"]).resource_logs).collect(),
    };
    let mut seen = BTreeSet::new();
    for gateway in [&one, &other] {
        gateway.logs().await.export(request.clone()).await.unwrap();
        let mut records = 0;
        while records < 32 {
            let envelope = tap.next().await;
            records += envelope.items;
            for part in logs_in(&envelope) {
                let stamped = attributes(part.resource.as_ref());
                let of = |key| value_of(&stamped, key);
                seen.insert((of("sightline.resource.id"), of("sightline.batch.id"), of("sightline.batch.part")));
            }
        }
        assert_eq!(records, 32);
    }
    assert_eq!(seen.len(), 16, "each part is one part, whichever gateway it came through: {seen:?}");
    let batches: BTreeSet<_> = seen.iter().map(|(_, batch, _)| batch).collect();
    assert_eq!(batches.len(), 1);
}

#[tokio::test]
async fn a_gateway_that_stops_leaves_the_other_at_work() {
    let settings = testkit::namespace();
    let one = Gateway::start_with(&settings, &["--anonymous-networks", "127.0.0.0/8"]).await;
    let other = one.another(&settings).await;
    let mut client = other.logs().await;
    client.export(lines(&[("host.id", "h1")], &["a"])).await.unwrap();
    one.process.stop().await;
    client.export(lines(&[("host.id", "h1")], &["b"])).await.unwrap();
    assert_eq!(other.count(Stream::Logs).await, 2);
}
