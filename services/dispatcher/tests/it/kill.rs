//! The real program, killed in the middle of a delivery.

use bus::{Bus, Outgoing, Subject};
use dispatcher::address::Policy;
use dispatcher::receiver::{Draft, new_secret};
use dispatcher::store::{MIGRATIONS, SCHEMA, ledger, receivers};
use lifecycle::Process;
use prost::Message as _;
use testkit::{Program, eventually};

use crate::receiver::{Answer, Receiver};
use crate::support::{PATIENCE, notification, settings};

#[tokio::test]
async fn a_delivery_that_a_kill_cut_off_is_made_again_with_the_same_id() {
    let process = Process::for_test();
    let (database, namespace) = (testkit::database().await, testkit::namespace());
    let pool = store::open(&process, &database, SCHEMA, MIGRATIONS).await.unwrap().work;
    let bus = Bus::connect(&namespace, process.ready("nats")).await.unwrap();
    let program = Program::new("dispatcher", env!("CARGO_BIN_EXE_dispatcher"), &database, &namespace)
        .with("SIGHTLINE_WEBHOOK_ALLOWED_NETWORKS", "127.0.0.0/8,::1/128");

    let mut receiver = Receiver::start([Answer::Hang]).await;
    let policy = Policy::new(settings().webhook_allowed_networks.0);
    let draft = Draft::check("ops", &receiver.url(), "", "", &policy).unwrap();
    receivers::create(&pool, "t", &draft, &new_secret().unwrap()).await.unwrap();

    let running = program.start();
    let told = notification("t", "a", "firing", &["ops"]);
    let message = Outgoing::new(told.id.clone(), told.encode_to_vec());
    bus.publish(Subject::Notifications, message).await.unwrap();
    let first = receiver.request().await;
    running.kill();

    let _running = program.start();
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
