//! Two replicas of everything: what one of them does while the other is killed neither loses, doubles nor reorders.

use devstack::services::SERVICES;
use tests_e2e::Sightline;

use crate::books::{SENDERS, Senders, balance};
use crate::crossings::Crossings;

#[tokio::test(flavor = "multi_thread")]
async fn two_of_each_lose_double_and_reorder_nothing_while_each_is_killed() {
    let mut sightline = Sightline::start(&[]).await;
    let mut replicas = Vec::new();
    for service in &SERVICES {
        let second = sightline.spawn_second(service.name);
        sightline.wait_ready(&second).await;
        replicas.extend([service.name.to_owned(), second]);
    }
    let admin = sightline.admin().await;
    let gateways = [sightline.http("ingest-gateway"), sightline.http("ingest-gateway-2")];
    let senders = Senders::through(&sightline, &gateways);
    let crossings = Crossings::start(&sightline, &admin, "replicas", &gateways).await;
    for replica in &replicas {
        let before = senders.sent();
        assert_eq!(sightline.kill(replica), "killed by signal 9", "{replica} was not killed");
        crossings.go_on(2).await;
        sightline.spawn(replica);
        sightline.wait_ready(replica).await;
        senders.flow(before, 2 * SENDERS).await;
    }
    crossings.judge(&sightline).await;
    balance(&sightline, &admin, senders).await;
}
