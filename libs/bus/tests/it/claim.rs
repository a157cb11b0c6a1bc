//! One replica does what all could do.

use std::time::Duration;

use crate::support::{PATIENCE, connect};

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_holds_a_claim_and_the_other_has_it_when_it_is_let_go() {
    let (bus, process) = connect().await;
    let (mut one, mut other) = (bus.claim("test", "work"), bus.claim("test", "work"));
    assert!(one.hold().await.unwrap());
    for _ in 0..3 {
        assert!(!other.hold().await.unwrap());
        assert!(one.hold().await.unwrap());
    }
    assert!(bus.claim("test", "other-work").hold().await.unwrap());
    assert_eq!(one.left(), "");
    one.leave("done".to_owned()).await;
    one.release().await;
    assert!(other.hold().await.unwrap());
    assert_eq!(other.left(), "done");
    assert!(other.hold().await.unwrap());
    assert_eq!(other.left(), "done");
    bus.delete_all_streams().await.unwrap();
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_falls_silent_loses_it() {
    let (bus, process) = connect().await;
    let (mut silent, mut other) = (bus.claim("test", "work"), bus.claim("test", "work").patience(Duration::ZERO));
    assert!(silent.hold().await.unwrap());
    // It was seen to speak just now.
    assert!(!other.hold().await.unwrap());
    testkit::eventually("the claim of a silent holder", PATIENCE, async || match other.hold().await.unwrap() {
        true => Ok(()),
        false => Err("still held"),
    })
    .await;
    assert!(!silent.hold().await.unwrap());
    bus.delete_all_streams().await.unwrap();
    process.stop().await;
}
