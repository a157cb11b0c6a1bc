//! Envelopes that are more than they look.

use bus::{Bus, Envelope, Stream};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;

use crate::support::{PATIENCE, Running, envelope};

/// Many empty lines under names that are as long as the bus lets them be.
fn long_names(lines: usize) -> Envelope {
    let mut envelope = envelope("default", 1, &"h".repeat(4_000), &vec![""; lines]);
    let mut request = ExportLogsServiceRequest::decode(envelope.body.clone()).unwrap();
    let scope = &mut request.resource_logs[0].scope_logs[0];
    let letters =
        (0..60_000_u32).map(|n| char::from(b'a' + u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap() % 26));
    scope.scope.as_mut().unwrap().name = letters.collect();
    envelope.body = request.encode_to_vec().into();
    envelope
}

#[tokio::test]
async fn what_is_said_once_in_an_envelope_does_not_fill_the_table() {
    let running = Running::start().await;
    running.publish_raw(long_names(2_000).encode("a").unwrap()).await;
    testkit::eventually("it is stored", PATIENCE, async || {
        let logs = running.account().await;
        if logs.stored == 1 { Ok(()) } else { Err(format!("{logs:?}")) }
    })
    .await;
    let bytes: i64 = sqlx::query_scalar(
        "select sum(pg_total_relation_size(relid))::bigint from pg_partition_tree('logs') where isleaf",
    )
    .fetch_one(&mut running.tables().await)
    .await
    .unwrap();
    // 120 MB with the names whole.
    assert!(bytes < 4_000_000, "{bytes}");
    running.stop().await;
}

#[tokio::test]
async fn many_envelopes_of_a_newer_version_cost_the_others_nothing() {
    let running = Running::start().await;
    for n in 0..200 {
        let newer = bus::Outgoing::new(format!("newer {n}"), "?").header("Sl-Schema", "otlp.logs.v2");
        running.publish_raw(newer.header("Sl-Encoding", "identity").header("Sl-Tenant", "default")).await;
    }
    running.publish("a", 1, &["one"]).await;
    running.finds(&["one"]).await;
    assert!(trials(&running.bus).await.is_empty());
    running.stop().await;
}

/// Subjects of the notes about messages that are handled alone.
async fn trials(bus: &Bus) -> Vec<String> {
    use futures::TryStreamExt as _;
    let context = async_nats::jetstream::new(async_nats::connect(bus.settings().nats_url.reveal()).await.unwrap());
    let namespace = &bus.settings().namespace;
    let state = context.get_stream(Stream::State.name(namespace)).await.unwrap();
    let subjects = state.info_with_subjects(format!("{namespace}.state.trials.>")).await.unwrap();
    subjects.map_ok(|(subject, _)| subject).try_collect().await.unwrap()
}
