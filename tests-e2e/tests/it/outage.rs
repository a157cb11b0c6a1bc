//! Servers that are away, at the start or later: services wait, say so, lose nothing, and recover by themselves.

use std::time::Duration;

use devstack::services::{DatabaseAccess, SERVICES};
use testkit::{Gate, eventually};
use tests_e2e::Sightline;

use crate::books::{SENDERS, Senders, balance};

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than every connection's time limit on the way, shorter than what senders bear.
const AWAY: Duration = Duration::from_secs(4);

/// The four servers behind gates.
struct Gates {
    nats: Gate,
    postgres: Gate,
    redis: Gate,
    metrics: Gate,
}

impl Gates {
    /// Puts gates, closed, between `sightline` and its servers.
    async fn install(sightline: &mut Sightline) -> Self {
        let servers = &mut sightline.stack.servers;
        let nats = through(&mut servers.nats).await;
        let redis = through(&mut servers.redis).await;
        let metrics = through(&mut servers.metrics).await;
        let mut database = sightline.database_url.clone();
        let postgres = through(&mut database).await;
        sightline.stack.database = DatabaseAccess::Shared { url: database };
        Self { nats, postgres, redis, metrics }
    }

    fn all(&self) -> [(&'static str, &Gate); 4] {
        [("nats", &self.nats), ("postgres", &self.postgres), ("redis", &self.redis), ("metrics", &self.metrics)]
    }
}

/// Puts a closed gate before the server of a URL, and its address into the URL.
async fn through(url: &mut String) -> Gate {
    let gate = Gate::before(url).await;
    gate.close();
    gate.url().clone_into(url);
    gate
}

#[tokio::test(flavor = "multi_thread")]
async fn services_wait_for_servers_and_lose_nothing_while_one_is_away() {
    let mut sightline = Sightline::prepare(&[]).await;
    let gates = Gates::install(&mut sightline).await;
    sightline.spawn_services();
    for service in &SERVICES {
        says_what_is_missing(&sightline, service.name).await;
    }
    for (_, gate) in gates.all() {
        gate.open();
    }
    sightline.wait_all_ready().await;

    let senders = Senders::start(&sightline);
    senders.flow(0, SENDERS).await;
    for (_, gate) in gates.all() {
        let before = senders.sent();
        gate.close();
        tokio::time::sleep(AWAY).await;
        gate.open();
        sightline.wait_all_ready().await;
        senders.flow(before, 2 * SENDERS).await;
    }
    let admin = sightline.admin().await;
    balance(&sightline, &admin, senders).await;
}

/// A service that cannot reach its servers is alive, is not ready, and names one of them.
async fn says_what_is_missing(sightline: &Sightline, service: &str) {
    let address = sightline.stack.admin_address(service);
    eventually("the service says what it misses", PATIENCE, async || {
        let asked = address.clone();
        let answer =
            tokio::task::spawn_blocking(move || devstack::http::get(&asked, "/readyz", Duration::from_secs(2)))
                .await
                .unwrap();
        let answer = answer.map_err(|error| format!("{service}: {error:#}\n{}", sightline.tail(service)))?;
        if answer.status == 503 { Ok(()) } else { Err(format!("{service}: {} {}", answer.status, answer.body)) }
    })
    .await;
}
