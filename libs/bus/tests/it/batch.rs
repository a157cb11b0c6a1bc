//! Messages that are handled together.

use std::sync::Mutex;
use std::time::Duration;

use bus::{Batch, Bus, Deliveries, Delivery, Options, Stream, Subject};
use lifecycle::CancellationToken;

use crate::support::{PATIENCE, connect, connect_to, name, next, send, text};

const STREAM: Stream = Stream::Transitions;

/// A batch of `texts` as a reader gets it.
async fn batch(bus: &Bus, texts: &[&str]) -> (Deliveries, Batch<String>) {
    send(bus, Subject::Transitions, texts.iter().copied()).await;
    let mut deliveries = bus.consume(STREAM, "alert-service", Options::default());
    let mut batch = Batch::default();
    for _ in texts {
        let delivery = next(&mut deliveries).await;
        let item = text(&delivery);
        batch.push(delivery, item);
    }
    (deliveries, batch)
}

/// Stands for a store: it is away a number of times, and takes no `x`.
struct Store {
    away: Mutex<u32>,
    stored: Mutex<Vec<String>>,
}

impl Store {
    fn away(times: u32) -> Self {
        Self { away: Mutex::new(times), stored: Mutex::default() }
    }

    async fn take(&self, items: &[String]) -> Result<(), &'static str> {
        if self.is_away() {
            return Err("away");
        }
        if items.iter().any(|item| item == "x") {
            return Err("poison");
        }
        self.stored.lock().unwrap().extend_from_slice(items);
        Ok(())
    }

    fn is_away(&self) -> bool {
        let mut away = self.away.lock().unwrap();
        let left = away.checked_sub(1);
        *away = left.unwrap_or_default();
        left.is_some()
    }

    fn stored(&self) -> Vec<String> {
        self.stored.lock().unwrap().clone()
    }
}

fn is_poison(error: &&'static str) -> bool {
    *error == "poison"
}

async fn settle(held: &[Delivery], outcome: Result<(), &'static str>) {
    match outcome {
        Ok(()) => bus::ack_all(held).await,
        Err(reason) => assert!(held.len() == 1 && held[0].bury("alert-service", reason).await),
    }
}

/// Waits until the broker has heard of everything; gives what was handled and what is dead.
async fn account(bus: &Bus) -> (u64, u64) {
    testkit::eventually("everything is answered", PATIENCE, async || {
        let accounts = bus.account().await.map_err(|error| error.to_string())?;
        let account = accounts.into_iter().find(|account| account.stream == name(bus, STREAM)).unwrap();
        if account.in_flight == 0 { Ok((account.stored, account.dead)) } else { Err(format!("{account:?}")) }
    })
    .await
}

#[tokio::test]
async fn what_is_there_comes_together_and_a_single_message_does_not_wait() {
    let (bus, _process) = connect().await;
    let mut deliveries = bus.consume(STREAM, "alert-service", Options::default());
    send(&bus, Subject::Transitions, ["a"]).await;
    assert_eq!(deliveries.several(3).await.len(), 1);
    send(&bus, Subject::Transitions, ["b", "c", "d", "e"]).await;
    let mut texts = Vec::new();
    while texts.len() < 4 {
        let several = deliveries.several(3).await;
        assert!(several.len() <= 3);
        texts.extend(several.iter().map(text));
    }
    assert_eq!(texts, ["b", "c", "d", "e"]);
}

#[tokio::test]
async fn while_the_store_is_away_messages_are_held_in_their_order() {
    let (bus, _process) = connect().await;
    let (_deliveries, batch) = batch(&bus, &["a", "b", "c"]).await;
    let store = Store::away(4);
    batch.work_off(&CancellationToken::new(), is_poison, |items| store.take(items), settle).await;
    assert_eq!(store.stored(), ["a", "b", "c"]);
    assert_eq!(account(&bus).await, (3, 0));
}

#[tokio::test]
async fn the_one_that_can_never_be_stored_is_found_and_its_neighbours_are_stored() {
    let (bus, _process) = connect().await;
    let (_deliveries, batch) = batch(&bus, &["a", "x", "c"]).await;
    let store = Store::away(0);
    batch.work_off(&CancellationToken::new(), is_poison, |items| store.take(items), settle).await;
    assert_eq!(store.stored(), ["a", "c"]);
    assert_eq!(account(&bus).await, (2, 1));
}

#[tokio::test]
async fn a_store_that_never_answers_is_asked_again_and_then_another_replica_is() {
    let hold_limit = Duration::from_millis(400);
    let (bus, _process) = connect_to(&bus::Settings { hold_limit, ..testkit::namespace() }).await;
    let (mut deliveries, batch) = batch(&bus, &["a", "b"]).await;
    let tries = Mutex::new(0);
    let silent = async |_: &[String]| {
        *tries.lock().unwrap() += 1;
        std::future::pending::<Result<(), &'static str>>().await
    };
    batch.within(Duration::from_millis(50)).work_off(&CancellationToken::new(), is_poison, silent, settle).await;
    assert!(*tries.lock().unwrap() > 1);
    let again = [next(&mut deliveries).await, next(&mut deliveries).await];
    assert_eq!(again.each_ref().map(text), ["a", "b"]);
}

#[tokio::test]
async fn what_is_held_for_longer_than_the_broker_waits_goes_to_nobody_else() {
    let (bus, _process) = connect().await;
    let (other, _other_process) = connect_to(bus.settings()).await;
    let (_deliveries, batch) = batch(&bus, &["a", "b"]).await;
    // Twice as long as the broker waits for control streams.
    let slow = async |_: &[String]| {
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok::<_, &'static str>(())
    };
    let mut elsewhere = other.consume(STREAM, "alert-service", Options::default());
    let stopping = CancellationToken::new();
    tokio::select! {
        () = batch.work_off(&stopping, is_poison, slow, settle) => {}
        delivery = elsewhere.next() => panic!("{} went to another replica", text(&delivery)),
    }
    assert_eq!(account(&bus).await, (2, 0));
}

#[tokio::test]
async fn what_is_held_when_the_process_stops_is_given_back() {
    let (bus, _process) = connect().await;
    let (mut deliveries, batch) = batch(&bus, &["a", "b"]).await;
    let (store, stopping) = (Store::away(u32::MAX), CancellationToken::new());
    let work = async |items| {
        stopping.cancel();
        store.take(items).await
    };
    batch.work_off(&stopping, is_poison, work, settle).await;
    assert!(store.stored().is_empty());
    let again = [next(&mut deliveries).await, next(&mut deliveries).await];
    assert_eq!(again.each_ref().map(text), ["a", "b"]);
    assert!(again.iter().all(Delivery::redelivered));
}
