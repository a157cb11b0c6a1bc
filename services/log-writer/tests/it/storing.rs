//! What is delivered is stored once, whatever happens on the way.

use bus::Outgoing;

use crate::support::Running;

#[tokio::test]
async fn a_line_is_found_after_it_was_published() {
    let running = Running::start().await;
    running.publish("a", 1, &["one", "two"]).await;
    running.finds(&["one", "two"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_comes_twice_is_stored_once() {
    let running = Running::start().await;
    running.publish("a", 1, &["one"]).await;
    running.publish("b", 1, &["one"]).await;
    running.publish("c", 2, &["two"]).await;
    running.settles().await;
    running.finds(&["one", "two"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_comes_again_after_a_restart_is_stored_once() {
    let running = Running::start().await;
    running.publish("a", 1, &["one"]).await;
    running.finds(&["one"]).await;
    let running = running.restart().await;
    running.publish("b", 1, &["one"]).await;
    running.settles().await;
    running.finds(&["one"]).await;
    running.stop().await;
}

#[tokio::test]
async fn without_the_batch_check_a_repeat_is_seen() {
    let running = Running::without_batch_check().await;
    running.publish("a", 1, &["one"]).await;
    running.publish("b", 1, &["one"]).await;
    running.finds(&["one", "one"]).await;
    running.stop().await;
}

#[tokio::test]
async fn what_can_never_be_stored_becomes_a_dead_letter_and_its_neighbours_are_stored() {
    let running = Running::start().await;
    running.publish_raw(Outgoing::new("poison", "no envelope at all")).await;
    running.publish("a", 1, &["a\0b"]).await;
    running.finds(&["a\u{fffd}b"]).await;
    running.settles().await;
    let accounts = running.bus.account().await.unwrap();
    let logs = accounts.iter().find(|account| account.stream.ends_with("LOGS_00")).unwrap();
    assert_eq!((logs.received, logs.stored, logs.dead), (2, 1, 1));
    running.stop().await;
}
