//! The real program, killed while transitions stream in.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bus::{Bus, From, Outgoing, Stream, Subject};
use lifecycle::Process;
use prost::Message as _;
use proto::alerts::{Notification, Transition};

/// What the killed process held comes again after 20 s.
const PATIENCE: Duration = Duration::from_secs(90);

const SERIES: usize = 200;

/// The running program; killed when dropped.
struct Program(Child);

impl Program {
    fn start(folder: &Path, database: &store::Settings, namespace: &bus::Settings) -> Self {
        let file = |name: &str| folder.join(name).into_os_string();
        let child = Command::new(env!("CARGO_BIN_EXE_alert-service"))
            .env_remove("SIGHTLINE_TEST_SERVERS")
            .env("SIGHTLINE_ADMIN_LISTEN", "127.0.0.1:0")
            .env("SIGHTLINE_GRPC_LISTEN", "127.0.0.1:0")
            .env("SIGHTLINE_AUTH_URL", "https://127.0.0.1:1")
            .env("SIGHTLINE_DATABASE_URL", database.database_url.reveal())
            .env("SIGHTLINE_NATS_URL", namespace.nats_url.reveal())
            .env("SIGHTLINE_NAMESPACE", &namespace.namespace)
            .env("SIGHTLINE_STREAM_MAX_BYTES", namespace.stream_max_bytes.to_string())
            .env("SIGHTLINE_TLS_CA_FILE", file("ca.pem"))
            .env("SIGHTLINE_TLS_CERT_FILE", file("cert.pem"))
            .env("SIGHTLINE_TLS_KEY_FILE", file("key.pem"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn transition(series: usize, state: &str, sample: u64) -> Transition {
    Transition {
        id: format!("{series}-{state}"),
        tenant: "t".into(),
        rule_id: "rule".into(),
        rule_version: 1,
        series: format!("s{series}"),
        state: state.into(),
        sample_unix_nano: sample,
        receivers: vec!["ops".into()],
        shard: "metrics.00".into(),
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
    let folder = tempfile::tempdir().unwrap();
    let authority = pki::Authority::new().unwrap();
    let issued = authority.issue("alert-service", &["alert-service"]).unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.certificate()).unwrap();
    std::fs::write(folder.path().join("cert.pem"), issued.certificate).unwrap();
    std::fs::write(folder.path().join("key.pem"), issued.key).unwrap();
    let mut notifications = bus.follow(Stream::Notifications, From::Sequence(1)).await;
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut hear = async || {
        let delivery = tokio::time::timeout(PATIENCE, notifications.next()).await;
        let delivery = delivery.unwrap_or_else(|_| panic!("a notification is missing: {told:?}"));
        let alert = Notification::decode(delivery.payload().clone()).unwrap().alert.unwrap();
        told.entry(alert.id).or_default().push(alert.state);
    };

    publish_all(&bus, "firing", 10).await;
    let program = Program::start(folder.path(), &database, &namespace);
    for _ in 0..SERIES / 10 {
        hear().await;
    }
    program.kill();
    publish_all(&bus, "resolved", 20).await;
    let _program = Program::start(folder.path(), &database, &namespace);
    for _ in SERIES / 10..2 * SERIES {
        hear().await;
    }
    assert_eq!(told.len(), SERIES);
    assert!(told.values().all(|states| states == &["firing", "resolved"]), "{told:?}");
    process.stop().await;
}
