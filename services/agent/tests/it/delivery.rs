//! Every line arrives exactly once, whatever the gateway answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tonic::Code;

use crate::support::{Gateway, Home, Reaction, numbered, sorted, write_until};

#[tokio::test]
async fn a_line_arrives_within_a_fraction_of_a_second() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let process = home.start(gateway.address).await;
    home.append(["warm up"]);
    gateway.until(vec!["warm up".to_owned()], |record| record.stored()).await;
    let appended = std::time::Instant::now();
    home.append(["hello"]);
    gateway.until(2, |record| record.stored().len()).await;
    let took = gateway.record.lock().unwrap().logs[1].at - appended;
    assert!(took < Duration::from_millis(500), "it took {took:?}");
    process.stop().await;
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
async fn a_batch_that_is_refused_for_good_does_not_hold_up_the_others() {
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
async fn a_missing_credential_keeps_batches_until_the_token_is_replaced() {
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
