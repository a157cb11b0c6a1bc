//! Messages that take their reader with them.

use std::time::Duration;

use bus::{Bus, Deliveries, Delivery, Options, Stream, Subject, Trial};

use crate::support::{PATIENCE, connect, name, next, next_followed, send, text};

const SERVICE: &str = "alert-service";

fn consume(bus: &Bus) -> Deliveries {
    bus.consume(Stream::Transitions, SERVICE, Options::default())
}

/// The next message, again and again given back, until it has been delivered `times` times.
async fn delivered(deliveries: &mut Deliveries, times: u64) -> Delivery {
    loop {
        let delivery = next(deliveries).await;
        if delivery.deliveries() == times {
            return delivery;
        }
        delivery.nak(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn what_was_delivered_often_comes_alone() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Transitions, ["suspect"]).await;
    let mut deliveries = consume(&bus);
    delivered(&mut deliveries, 2).await.nak(Duration::from_millis(300)).await;
    send(&bus, Subject::Transitions, ["a", "b"]).await;
    let mut all = Vec::new();
    while all.len() < 3 {
        let several = deliveries.several(10).await;
        let texts: Vec<String> = several.iter().map(text).collect();
        assert!(texts == ["suspect"] || !texts.contains(&"suspect".to_owned()), "{texts:?}");
        all.extend(texts);
    }
}

#[tokio::test]
async fn what_no_reader_comes_back_from_is_put_aside_with_its_reason() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Transitions, ["poison"]).await;
    let mut deliveries = consume(&bus);
    for times in 3..5 {
        let delivery = delivered(&mut deliveries, times).await;
        let trial = Trial::begin(SERVICE, std::slice::from_ref(&delivery)).await;
        assert!(trial.is_some(), "it is tried twice");
        // As if the process had been killed here.
        drop(trial);
        delivery.nak(Duration::ZERO).await;
    }
    let delivery = delivered(&mut deliveries, 5).await;
    assert!(Trial::begin(SERVICE, std::slice::from_ref(&delivery)).await.is_none());
    let mut dead = bus.follow(Stream::Dead, bus::From::Sequence(1)).await;
    let letter = next_followed(&mut dead).await;
    assert_eq!((text(&letter).as_str(), letter.header("Sl-Dead-Sequence")), ("poison", Some("1")));
    assert!(letter.header("Sl-Dead-Reason").unwrap().contains("no reader came back"));
    testkit::eventually("it is answered", PATIENCE, async || {
        let accounts = bus.account().await.unwrap();
        let account = accounts.into_iter().find(|account| account.stream == name(&bus, Stream::Transitions)).unwrap();
        if (account.dead, account.ack_pending) == (1, 0) { Ok(()) } else { Err(format!("{account:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_away_for_long_condemns_nothing() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Transitions, ["innocent"]).await;
    let mut deliveries = consume(&bus);
    for times in 3..9 {
        let delivery = delivered(&mut deliveries, times).await;
        let trial = Trial::begin(SERVICE, std::slice::from_ref(&delivery)).await.expect("it is tried");
        delivery.nak(Duration::ZERO).await;
        trial.end().await;
    }
    delivered(&mut deliveries, 9).await.ack().await;
}
