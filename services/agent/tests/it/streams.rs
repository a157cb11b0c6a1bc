//! Process snapshots and the command stream.

use crate::support::{Gateway, Home, Reaction, eventually};

#[tokio::test]
async fn snapshots_arrive_one_after_the_other_and_show_this_process() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let process = home.start(gateway.address).await;
    gateway.until(true, |record| record.snapshots.len() >= 3).await;
    process.stop().await;
    gateway.until(0, |record| record.streams_open).await;
    let record = gateway.record.lock().unwrap();
    let own = i32::try_from(std::process::id()).unwrap();
    for snapshot in &record.snapshots {
        assert!(snapshot.processes.iter().any(|process| process.pid == own));
        assert_eq!(snapshot.meta.as_ref().unwrap().kind, "host");
    }
}

#[tokio::test]
async fn a_command_is_answered_with_a_refusal() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let process = home.start(gateway.address).await;
    gateway.until(2, |record| record.streams_open).await;
    gateway.command("shell", "id", &[]);
    gateway.until(1, |record| record.command_answers.len()).await;
    process.stop().await;
    let record = gateway.record.lock().unwrap();
    let answer = &record.command_answers[0];
    assert!(!answer.success && answer.error_message == "commands are disabled on this agent");
}

#[tokio::test]
async fn disconnect_closes_everything_and_keeps_what_comes_meanwhile() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let process = home.start(gateway.address).await;
    gateway.until(2, |record| record.streams_open).await;
    gateway.command("control", "disconnect", &[]);
    gateway.until(0, |record| record.streams_open).await;
    home.append(["while away"]);
    eventually(|| home.spooled() > 0).await;
    process.stop().await;
    assert!(gateway.record.lock().unwrap().stored().is_empty());
    assert_eq!(home.spooled(), 1);

    let process = home.start(gateway.address).await;
    gateway.until(vec!["while away".to_owned()], |record| record.stored()).await;
    process.stop().await;
}

#[tokio::test]
async fn streams_come_back_after_the_gateway_was_away() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let process = home.start(gateway.address).await;
    gateway.until(true, |record| record.streams_open == 2 && !record.snapshots.is_empty()).await;
    let (address, record) = (gateway.address, gateway.record.clone());
    drop(gateway);
    crate::support::until(&record, 0, |record| record.streams_open).await;
    let before = record.lock().unwrap().snapshots.len();
    let gateway = Gateway::start_again(address, record).await;
    gateway.until(true, |record| record.streams_open == 2 && record.snapshots.len() > before).await;
    process.stop().await;
}

#[tokio::test]
async fn what_is_on_its_way_when_the_gateway_says_farewell_is_answered_and_not_sent_again() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let process = home.start(gateway.address).await;
    gateway.until(2, |record| record.streams_open).await;
    gateway.plan([Reaction::AcceptWhenTold]);
    home.append(["under way"]);
    gateway.until(1, |record| record.logs.len()).await;
    gateway.command("control", "disconnect", &["within=2s"]);
    gateway.until(0, |record| record.streams_open).await;
    home.append(["after it"]);
    gateway.tell();
    gateway.until(2, |record| record.streams_open).await;
    gateway.until(vec!["under way".to_owned(), "after it".to_owned()], |record| record.stored()).await;
    process.stop().await;
    assert_eq!((home.spooled(), gateway.record.lock().unwrap().logs.len()), (0, 2));
}
