//! Neither an outage of the gateway nor the end of the agent, however sudden, loses or doubles a line.

use std::process::{Child, Command, Stdio};

use crate::support::{Gateway, Home, eventually, numbered, sorted, until, write_until};

#[tokio::test]
async fn lines_of_an_outage_arrive_after_it_even_if_the_agent_was_restarted() {
    let home = Home::new();
    let gateway = Gateway::start().await;
    let process = home.start(gateway.address).await;
    home.append(numbered(0..10));
    gateway.until(10, |record| record.stored().len()).await;
    let (address, record) = (gateway.address, gateway.record.clone());
    drop(gateway);

    home.append(numbered(10..20));
    eventually(|| home.spooled() > 0).await;
    process.stop().await;
    home.append(numbered(20..30));

    let process = home.start(address).await;
    home.append(numbered(30..40));
    let gateway = Gateway::start_again(address, record).await;
    gateway.until(numbered(0..40), |record| sorted(record.stored())).await;
    process.stop().await;
    assert_eq!(home.spooled(), 0);
}

#[tokio::test]
async fn metrics_of_an_outage_arrive_after_it() {
    let home = Home::new();
    let gateway = Gateway::start().await;
    let (address, record) = (gateway.address, gateway.record.clone());
    drop(gateway);
    let process = home.start(address).await;
    let spool = home.path("state/spool");
    eventually(|| std::fs::read_dir(&spool).unwrap().count() >= 5).await;
    let gateway = Gateway::start_again(address, record).await;
    gateway.until(true, |record| record.metrics.len() > 6).await;
    process.stop().await;
    let record = gateway.record.lock().unwrap();
    let mut sequences: Vec<u64> =
        record.metrics.iter().map(|(batch, _)| batch.split_once('-').unwrap().1.parse().unwrap()).collect();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences[..5], [1, 2, 3, 4, 5]);
}

/// An agent of its own process, killed when dropped.
struct Agent(Child);

impl Agent {
    fn start(home: &Home, endpoint: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_agent"))
            .args(home.arguments(endpoint))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_over_and_over_delivers_every_line_once() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let endpoint = format!("http://{}", gateway.address);
    let stop = lifecycle::CancellationToken::new();
    let mut writer = tokio::task::JoinSet::new();
    writer.spawn(write_until(home.log(), stop.clone()));
    for round in 0..6 {
        let agent = Agent::start(&home, &endpoint);
        let before = gateway.record.lock().unwrap().logs.len();
        until(&gateway.record, true, |record| record.logs.len() > before + 3 + round).await;
        drop(agent);
    }
    let agent = Agent::start(&home, &endpoint);
    stop.cancel();
    let written = writer.join_next().await.unwrap().unwrap();
    gateway.until(numbered(first(&gateway)..written), |record| sorted(record.stored())).await;
    drop(agent);
}

/// Lines that were there when the very first agent began are not its business.
fn first(gateway: &Gateway) -> u32 {
    let stored = sorted(gateway.record.lock().unwrap().stored());
    stored.first().unwrap().trim_start_matches("line ").parse().unwrap()
}
