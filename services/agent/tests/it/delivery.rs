//! Every line arrives exactly once, whatever the gateway answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tonic::Code;

use crate::support::{Gateway, Home, Reaction, numbered, sorted, write_until};

#[tokio::test]
async fn the_first_line_after_a_quiet_time_waits_for_no_others_and_the_next_go_together() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let more = ["--linger", "60s", "--linger-bytes", "5KiB"].map(str::to_owned);
    let process = home.start_with(&format!("http://{}", gateway.address), &more).await;
    home.append(["first"]);
    gateway.until(vec!["first".to_owned()], |record| record.stored()).await;
    home.append(numbered(0..3));
    home.append(numbered(3..40));
    gateway.until(41, |record| record.stored().len()).await;
    assert_eq!(gateway.record.lock().unwrap().logs.len(), 2);
    // The end waits for nothing.
    home.append(["last"]);
    process.stop().await;
    assert_eq!(gateway.record.lock().unwrap().stored().last().unwrap(), "last");
}

/// So much that no connection takes it before it was read.
fn incompressible(lines: usize) -> Vec<String> {
    use rand::Rng as _;
    let mut random = rand::rng();
    let mut line = || (0..50_000).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect();
    (0..lines).map(|_| line()).collect()
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_was_read_is_understood() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    gateway.record.lock().unwrap().early.extend([Code::Unauthenticated, Code::InvalidArgument]);
    let process = home.start(gateway.address).await;
    home.append(incompressible(5));
    // Kept at the first, given up at the second: a connection that broke would have been a third attempt.
    gateway.until((2, 0), |record| (record.early_answers, record.early.len())).await;
    home.append(["good"]);
    gateway.until(vec!["good".to_owned()], |record| record.stored()).await;
    process.stop().await;
    assert_eq!((home.spooled(), gateway.record.lock().unwrap().logs.len()), (0, 1));
}

#[tokio::test]
async fn a_large_request_that_is_answered_early_arrives_when_it_may() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    gateway.record.lock().unwrap().early.extend([Code::Unavailable, Code::DeadlineExceeded]);
    let process = home.start(gateway.address).await;
    let lines = incompressible(4);
    home.append(&lines);
    gateway.until(true, |record| sorted(record.stored()) == sorted(lines.clone())).await;
    process.stop().await;
    assert_eq!(gateway.record.lock().unwrap().early_answers, 2);
}

#[tokio::test]
async fn refusals_and_lost_answers_neither_lose_nor_double_a_line() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    gateway.plan((0..60).map(|n| match n % 5 {
        0 => Reaction::Refuse(Code::Unavailable),
        1 => Reaction::AcceptAndLoseAnswer,
        2 => Reaction::Later(Duration::from_millis(20)),
        3 => Reaction::Refuse(Code::Internal),
        _ => Reaction::Accept,
    }));
    let process = home.start(gateway.address).await;
    let stop = lifecycle::CancellationToken::new();
    let mut writer = tokio::task::JoinSet::new();
    writer.spawn(write_until(home.log(), stop.clone()));
    gateway.until(true, |record| record.plan.is_empty()).await;
    stop.cancel();
    let written = writer.join_next().await.unwrap().unwrap();
    gateway.until(numbered(0..written), |record| sorted(record.stored())).await;
    process.stop().await;
    assert_eq!(home.spooled(), 0);

    let record = gateway.record.lock().unwrap();
    let mut batches: BTreeMap<&str, Vec<&[String]>> = BTreeMap::new();
    for received in &record.logs {
        batches.entry(&received.batch).or_default().push(&received.lines);
    }
    assert!(batches.values().any(|attempts| attempts.len() > 1), "nothing was retried");
    for (batch, attempts) in &batches {
        assert!(attempts.windows(2).all(|pair| pair[0] == pair[1]), "{batch} changed between attempts");
    }
    let boots: BTreeSet<_> = batches.keys().map(|batch| batch.split_once('-').unwrap().0).collect();
    assert_eq!(boots.len(), 1);
    // Without the batch ids some lines would be there twice: the lost answers were real.
    let raw: usize = record.logs.iter().filter(|received| received.accepted).map(|received| received.lines.len()).sum();
    assert!(raw > usize::try_from(written).unwrap());
}

#[tokio::test]
async fn a_request_that_is_refused_for_good_does_not_hold_up_the_others() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    gateway.plan([Reaction::Refuse(Code::InvalidArgument)]);
    let process = home.start(gateway.address).await;
    home.append(["bad"]);
    gateway.until(1, |record| record.logs.len()).await;
    home.append(["good"]);
    gateway.until(vec!["good".to_owned()], |record| record.stored()).await;
    process.stop().await;
    assert_eq!((home.spooled(), gateway.record.lock().unwrap().logs.len()), (0, 2));
}

#[tokio::test]
async fn a_delay_that_the_gateway_asks_for_is_kept() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let delay = Duration::from_millis(1500);
    gateway.plan([Reaction::Later(delay)]);
    let process = home.start(gateway.address).await;
    home.append(["patient"]);
    gateway.until(1, |record| record.stored().len()).await;
    process.stop().await;
    let record = gateway.record.lock().unwrap();
    let first = &record.logs[0];
    let last = record.logs.last().unwrap();
    assert_eq!(first.batch, last.batch);
    assert!(last.at - first.at >= delay, "came back after {:?}", last.at - first.at);
}

#[tokio::test]
async fn a_missing_credential_keeps_requests_until_the_token_is_replaced() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    gateway.always(Reaction::Refuse(Code::Unauthenticated));
    let token = home.path("token");
    std::fs::write(&token, "old\n").unwrap();
    let more = ["--token-file".to_owned(), token.to_str().unwrap().to_owned()];
    let process = home.start_with(&format!("http://{}", gateway.address), &more).await;
    home.append(["secret"]);
    gateway.until(true, |record| record.credentials.len() > 2).await;
    gateway.always(Reaction::Accept);
    std::fs::write(&token, "new one\n").unwrap();
    gateway.until(vec!["secret".to_owned()], |record| record.stored()).await;
    process.stop().await;
    let record = gateway.record.lock().unwrap();
    assert_eq!(record.credentials.first().unwrap().as_deref(), Some("Bearer old"));
    assert_eq!(record.credentials.last().unwrap().as_deref(), Some("Bearer new one"));
}
