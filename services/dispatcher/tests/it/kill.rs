//! The real program, killed in the middle of a delivery.

use std::sync::Arc;

use authn::Scope;
use bus::{Bus, Outgoing, Subject};
use dispatcher::address::Policy;
use dispatcher::receiver::{Draft, new_secret};
use dispatcher::store::receivers::Receivers;
use dispatcher::store::{MIGRATIONS, SCHEMA, ledger};
use lifecycle::Process;
use prost::Message as _;
use seal::Seal;
use testkit::{Program, eventually};

use crate::receiver::{Answer, Receiver};
use crate::support::{Heard, PATIENCE, notification, settings};

/// A program, its database, and receivers that are there before it begins.
struct Stage {
    process: Process,
    pools: store::Pools,
    bus: Bus,
    program: Program,
}

impl Stage {
    async fn set() -> Self {
        let process = Process::for_test();
        let (database, namespace) = (testkit::database().await, testkit::namespace());
        let pools = store::open(&process, &database, SCHEMA, MIGRATIONS).await.unwrap();
        let bus = Bus::connect(&namespace, process.ready("nats")).await.unwrap();
        let program = Program::new("dispatcher", env!("CARGO_BIN_EXE_dispatcher"), &database, &namespace)
            .with("SIGHTLINE_WEBHOOK_ALLOWED_NETWORKS", "127.0.0.0/8,::1/128")
            .with("SIGHTLINE_WEBHOOK_RETRY_FIRST", "50ms")
            .with("SIGHTLINE_WEBHOOK_RETRY_MOST", "500ms");
        Self { process, pools, bus, program }
    }

    async fn create(&self, name: &str, receiver: &Receiver) {
        let policy = Policy::new(settings().webhook_allowed_networks.0);
        let draft = Draft::check(name, &receiver.url(), "", "", &policy).unwrap();
        let seal = Arc::new(Seal::from_file(None, "").unwrap());
        let receivers = Receivers { pools: self.pools.clone(), seal };
        receivers.create(&Scope::tenant_wide("t"), &draft, &new_secret().unwrap()).await.unwrap();
    }

    async fn publish(&self, told: &proto::alerts::Notification) {
        let message = Outgoing::new(told.id.clone(), told.encode_to_vec());
        self.bus.publish(Subject::Notifications, message).await.unwrap();
    }
}

#[tokio::test]
async fn a_delivery_that_a_kill_cut_off_is_made_again_with_the_same_id() {
    let stage = Stage::set().await;
    let mut receiver = Receiver::start([Answer::Hang]).await;
    stage.create("ops", &receiver).await;
    let running = stage.program.start();
    stage.publish(&notification("t", "a", "firing", &["ops"])).await;
    let first = receiver.request().await;
    running.kill();

    let _running = stage.program.start();
    let second = receiver.request().await;
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    let filter = ledger::Filter { tenant: "t".into(), ..Default::default() };
    let delivery = eventually("the end of the delivery", PATIENCE, async || {
        let (_, delivery) = ledger::list(&stage.pools.api, &filter, i64::MAX, 1).await.unwrap().remove(0);
        if delivery.state == "delivered" { Ok(delivery) } else { Err(format!("{delivery:?}")) }
    })
    .await;
    let attempts: Vec<_> = delivery.attempts.iter().map(|a| (a.http_status, a.error.as_str())).collect();
    assert_eq!(attempts, [(0, "cut off: the dispatcher ended before an answer came"), (200, "")]);
    stage.process.stop().await;
}

#[tokio::test]
async fn three_hundred_notifications_with_kills_and_misbehaving_receivers_all_arrive_and_each_group_in_order() {
    const GROUPS: usize = 150;
    let stage = Stage::set().await;
    let mut good = Receiver::start([]).await;
    let bad = Receiver::start(vec![Answer::Status(500); 10_000]).await;
    let hanging = Receiver::start(vec![Answer::Hang; 10_000]).await;
    for (name, receiver) in [("good", &good), ("bad", &bad), ("hanging", &hanging)] {
        stage.create(name, receiver).await;
    }
    let _steady = stage.program.start();
    let mut heard = Heard::default();
    for (round, state) in ["firing", "resolved"].into_iter().enumerate() {
        for part in 0..3 {
            let running = stage.program.start();
            for group in part * GROUPS / 3..(part + 1) * GROUPS / 3 {
                stage.publish(&notification("t", &format!("g{group}"), state, &["bad", "good", "hanging"])).await;
            }
            let least = round * GROUPS + part * GROUPS / 3 + GROUPS / 6;
            while heard.taken() < least {
                heard.hear(&good.request().await);
            }
            running.kill();
        }
    }
    while heard.taken() < 2 * GROUPS {
        heard.hear(&good.request().await);
    }
    // Only what a kill cut off comes again: at most what one process has under way, or has not written down yet.
    assert!(heard.repeats <= 6 * 8, "{}", heard.repeats);
    stage.process.stop().await;
}
