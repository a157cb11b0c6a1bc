//! The store is not there.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::front::{Front, Writes};
use crate::support::{Observer, PATIENCE, wait_for_missing, wait_until_ready};

/// A port where nobody listens.
async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_store_is_away_at_the_start_and_later() {
    let observer = Observer::start().await;
    let address = closed().await;
    let writer = observer.writer(&format!("http://{address}")).await;
    let reason = wait_for_missing(&writer, "metrics-store").await;
    assert!(reason.contains("cannot be reached") || reason.contains("starting"), "{reason}");
    let expected: Vec<f64> = (0..40_u32).map(f64::from).collect();
    for (n, value) in (0_u64..).zip(&expected[..20]) {
        observer.publish(&format!("m{n}"), &observer.envelope("count", *value, 100 - n)).await;
    }
    let reason = wait_for_missing(&writer, "remote-write").await;
    assert!(reason.contains("cannot be reached"), "{reason}");
    let front = Front::at(address).await;
    observer.wait_for("count", &expected[..20]).await;
    wait_until_ready(&writer).await;
    drop(front);
    for (n, value) in (20_u64..).zip(&expected[20..]) {
        observer.publish(&format!("m{n}"), &observer.envelope("count", *value, 100 - n)).await;
    }
    wait_for_missing(&writer, "remote-write").await;
    let _front = Front::at(address).await;
    observer.wait_for("count", &expected).await;
    observer.wait_for_acknowledged(40).await;
    assert_eq!(observer.account().await.dead, 0);
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_stores_stores_nothing() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    front.writes(Writes::Redirected);
    let writer = observer.writer(&front.url()).await;
    observer.publish("m", &observer.envelope("count", 7.0, 10)).await;
    let reason = wait_for_missing(&writer, "remote-write").await;
    assert!(reason.contains("/login"), "{reason}");
    front.writes(Writes::Page);
    testkit::eventually("the other reason", PATIENCE, async || {
        let reason = wait_for_missing(&writer, "remote-write").await;
        if reason.contains("no metrics store") { Ok(()) } else { Err(reason) }
    })
    .await;
    let account = observer.account().await;
    assert_eq!((account.stored, account.dead), (0, 0));
    front.writes(Writes::Pass);
    observer.wait_for("count", &[7.0]).await;
    writer.stop().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_store_is_away_gives_back_what_is_held() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    front.writes(Writes::Unavailable);
    let writer = observer.writer(&front.url()).await;
    for n in 0..50_u32 {
        let envelope = observer.envelope("count", f64::from(n), 100 - u64::from(n));
        observer.publish(&format!("m{n}"), &envelope).await;
    }
    wait_for_missing(&writer, "remote-write").await;
    writer.stop().await;
    // The next one gets them at once, not when the time to acknowledge is over (60 s, longer than this waits).
    front.writes(Writes::Pass);
    let writer = observer.writer(&front.url()).await;
    observer.wait_for_acknowledged(50).await;
    let expected: Vec<f64> = (0..50_u32).map(f64::from).collect();
    observer.wait_for("count", &expected).await;
    writer.stop().await;
    observer.stop().await;
}
