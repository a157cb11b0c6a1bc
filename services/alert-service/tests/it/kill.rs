//! The real program, killed while transitions stream in.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{Bus, From, Outgoing, Stream, Subject};
use lifecycle::Process;
use prost::Message as _;
use proto::alerts::{Notification, Transition};
use testkit::Program;

/// What the killed process held comes again after a few seconds.
const PATIENCE: Duration = Duration::from_secs(90);

const SERIES: usize = 150;

fn transition(series: usize, state: &str, sample: u64) -> Transition {
    Transition {
        id: format!("{series}-{state}"),
        tenant: "t".into(),
        rule_id: "rule".into(),
        rule_version: 1,
        series: format!("s{series}"),
        state: state.into(),
        sample_unix_nano: sample,
        order: sample,
        previous: if state == "resolved" { format!("{series}-firing") } else { String::new() },
        receivers: vec!["ops".into()],
        shard: "00/metrics".into(),
        epoch: 1,
        ..Transition::default()
    }
}

async fn publish_all(bus: &Bus, state: &str, sample: u64) {
    for series in 0..SERIES {
        let transition = transition(series, state, sample);
        let message = Outgoing::new(transition.id.clone(), transition.encode_to_vec());
        bus.publish(Subject::Transitions, message).await.unwrap();
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_repeats_nothing_and_keeps_the_order() {
    let process = Process::for_test();
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let bus = Bus::connect(&namespace, process.ready("nats")).await.unwrap();
    let program = Program::new("alert-service", env!("CARGO_BIN_EXE_alert-service"), &database, &namespace);
    let mut notifications = bus.follow(Stream::Notifications, From::Sequence(1)).await;
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut hear = async || {
        let delivery = tokio::time::timeout(PATIENCE, notifications.next()).await;
        let delivery = delivery.unwrap_or_else(|_| panic!("a notification is missing: {told:?}"));
        let alert = Notification::decode(delivery.payload().clone()).unwrap().alerts.remove(0);
        told.entry(alert.id).or_default().push(alert.state);
    };

    // Two replicas of which one is killed again and again, wherever it is.
    let _other = program.start();
    publish_all(&bus, "firing", 10).await;
    for part in 0..6 {
        let running = program.start();
        for _ in 0..SERIES / 10 {
            hear().await;
        }
        running.kill();
        if part == 2 {
            publish_all(&bus, "resolved", 20).await;
        }
    }
    for _ in 6 * (SERIES / 10)..2 * SERIES {
        hear().await;
    }
    assert_eq!(told.len(), SERIES);
    assert!(told.values().all(|states| states == &["firing", "resolved"]), "{told:?}");
    process.stop().await;
}
