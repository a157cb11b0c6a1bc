//! Each of the four servers is killed under load and comes back on what it left behind: nothing is lost, nothing doubled.

use devstack::servers::{METRICS, NATS, POSTGRES, REDIS};
use devstack::services::DatabaseAccess;
use tests_e2e::Sightline;
use tests_e2e::servers::Servers;

use crate::books::{SENDERS, Senders, balance};
use crate::crossings::Crossings;

/// The broker more often than the others: everything passes through it.
const KILLED: [&str; 9] = [NATS, METRICS, NATS, POSTGRES, NATS, REDIS, METRICS, POSTGRES, NATS];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_stored_once_while_every_server_is_killed() {
    let mut servers = Servers::start("crashes").await;
    let mut sightline = Sightline::prepare(&[]).await;
    sightline.stack.servers = servers.urls();
    sightline.database_url = servers.urls().postgres;
    sightline.stack.database = DatabaseAccess::Shared { url: servers.urls().postgres };
    sightline.spawn_services();
    sightline.wait_all_ready().await;
    let admin = sightline.admin().await;
    let gateways = [sightline.ingest_http()];
    let senders = Senders::through(&sightline, &gateways);
    let crossings = Crossings::start(&sightline, &admin, "crashes", &gateways).await;
    for server in KILLED {
        let before = senders.sent();
        servers.kill(server);
        servers.spawn(server).await;
        senders.flow(before, 2 * SENDERS).await;
        crossings.go_on(2).await;
    }
    sightline.wait_all_ready().await;
    crossings.judge(&sightline).await;
    balance(&sightline, &admin, senders).await;
}
