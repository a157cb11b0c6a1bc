//! The real program, killed in the middle of a delivery.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use bus::{Bus, Outgoing, Subject};
use dispatcher::address::Policy;
use dispatcher::receiver::{Draft, new_secret};
use dispatcher::store::{MIGRATIONS, SCHEMA, ledger, receivers};
use lifecycle::Process;
use prost::Message as _;
use testkit::eventually;

use crate::receiver::{Answer, Receiver};
use crate::support::{PATIENCE, notification, webhooks};

/// The running program; killed when dropped.
struct Program(Child);

impl Program {
    fn start(folder: &Path, database: &store::Settings, namespace: &bus::Settings) -> Self {
        let file = |name: &str| folder.join(name).into_os_string();
        let child = Command::new(env!("CARGO_BIN_EXE_dispatcher"))
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
            .env("SIGHTLINE_WEBHOOK_ALLOWED_NETWORKS", "127.0.0.0/8,::1/128")
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

#[tokio::test]
async fn a_delivery_that_a_kill_cut_off_is_made_again_with_the_same_id() {
    let process = Process::for_test();
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let pool = store::open(&process, &database, SCHEMA, MIGRATIONS).await.unwrap();
    let bus = Bus::connect(&namespace, process.ready("nats")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = pki::Authority::new().unwrap();
    let issued = authority.issue("dispatcher", &["dispatcher"]).unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.certificate()).unwrap();
    std::fs::write(folder.path().join("cert.pem"), issued.certificate).unwrap();
    std::fs::write(folder.path().join("key.pem"), issued.key).unwrap();

    let mut receiver = Receiver::start([Answer::Hang]).await;
    let policy = Policy::new(webhooks().webhook_allowed_networks.0);
    let draft = Draft::check("ops", &receiver.url(), "", "", &policy).unwrap();
    receivers::create(&pool, "t", &draft, &new_secret().unwrap()).await.unwrap();

    let program = Program::start(folder.path(), &database, &namespace);
    let told = notification("t", "a", "firing", &["ops"]);
    let message = Outgoing::new(told.id.clone(), told.encode_to_vec());
    bus.publish(Subject::Notifications, message).await.unwrap();
    let first = receiver.request().await;
    program.kill();

    let _program = Program::start(folder.path(), &database, &namespace);
    let second = receiver.request().await;
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    let filter = ledger::Filter { tenant: "t".into(), ..Default::default() };
    let delivery = eventually("the end of the delivery", PATIENCE, async || {
        let (_, delivery) = ledger::list(&pool, &filter, i64::MAX, 1).await.unwrap().remove(0);
        if delivery.state == "delivered" { Ok(delivery) } else { Err(format!("{delivery:?}")) }
    })
    .await;
    let attempts: Vec<_> = delivery.attempts.iter().map(|a| (a.http_status, a.error.as_str())).collect();
    assert_eq!(attempts, [(0, "cut off: the dispatcher ended before an answer came"), (200, "")]);
    process.stop().await;
}
