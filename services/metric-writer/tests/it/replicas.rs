//! Two writers on one broker.

use crate::front::{Front, Writes};
use crate::support::{Observer, PATIENCE, REDELIVERY, wait_until_ready};

async fn publish(observer: &Observer, name: &str, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let envelope = observer.envelope(name, f64::from(n), 1_000 - u64::from(n));
        observer.publish(&format!("{name}-{n}"), &envelope).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_killed_and_one_that_is_slow_store_everything_once() {
    let observer = Observer::start().await;
    let (silent, slow) = (Front::start().await, Front::start().await);
    silent.writes(Writes::Silent);
    slow.writes(Writes::After(50));
    let killed = observer.program(&silent.url()).await.start();
    publish(&observer, "count", 0..50).await;
    testkit::eventually("a write that hangs", PATIENCE, async || match silent.writes_with("count") {
        0 => Err("none yet"),
        _ => Ok(()),
    })
    .await;
    let writer = observer.writer(&slow.url()).await;
    publish(&observer, "count", 50..300).await;
    testkit::eventually("the slow one storing", PATIENCE, async || match slow.writes_with("count") {
        0 => Err("nothing yet"),
        _ => Ok(()),
    })
    .await;
    killed.kill();
    observer.wait_long_for_acknowledged(300, REDELIVERY).await;
    let expected: Vec<f64> = (0..300_u32).map(f64::from).collect();
    observer.wait_for("count", &expected).await;
    let account = observer.account().await;
    assert_eq!((account.stored, account.stored_items, account.dead, account.in_flight), (300, 300, 0, 0));
    assert_eq!(account.lost, 0);
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_restarts_is_given_again_what_it_lost_by_one_of_them() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    let (one, other) = (observer.writer(&front.url()).await, observer.writer(&front.url()).await);
    wait_until_ready(&one).await;
    wait_until_ready(&other).await;
    front.writes(Writes::Lost);
    publish(&observer, "count", 0..30).await;
    observer.wait_for_acknowledged(30).await;
    front.writes(Writes::Pass);
    front.clear();
    front.restart_store();
    let expected: Vec<f64> = (0..30_u32).map(f64::from).collect();
    observer.wait_for("count", &expected).await;
    // Both have looked at the store since, several times.
    let looks = front.looks();
    testkit::eventually("more looks", PATIENCE, async || match front.looks() - looks {
        0..6 => Err("not yet"),
        _ => Ok(()),
    })
    .await;
    assert_eq!(front.writes_with("count"), 1);
    one.stop().await;
    other.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_one_sees_to_the_store_when_the_first_is_gone() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    let one = observer.writer(&front.url()).await;
    wait_until_ready(&one).await;
    let other = observer.writer(&front.url()).await;
    wait_until_ready(&other).await;
    front.writes(Writes::Lost);
    publish(&observer, "count", 0..30).await;
    observer.wait_for_acknowledged(30).await;
    one.stop().await;
    // The other one takes over before the store dies with what it has answered and not written down.
    let looks = front.looks();
    testkit::eventually("looks of the other one", PATIENCE, async || match front.looks() - looks {
        0..4 => Err("not yet"),
        _ => Ok(()),
    })
    .await;
    front.writes(Writes::Pass);
    front.restart_store();
    let expected: Vec<f64> = (0..30_u32).map(f64::from).collect();
    observer.wait_for("count", &expected).await;
    other.stop().await;
    observer.stop().await;
}
