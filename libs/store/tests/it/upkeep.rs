//! One replica does the upkeep for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lifecycle::Process;
use store::Migrations;
use testkit::eventually;

const EVERY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

/// A replica whose first round fails, and the rounds that it has begun.
async fn replica(database: &store::Settings) -> (Process, Arc<AtomicU32>) {
    let (process, rounds) = (Process::for_test(), Arc::new(AtomicU32::new(0)));
    let pool = store::open(&process, database, "kept", Migrations(&[])).await.unwrap().work;
    let begun = Arc::clone(&rounds);
    let round = move || {
        let round = begun.fetch_add(1, Ordering::Relaxed);
        async move { if round == 0 { Err(sqlx::Error::RowNotFound) } else { Ok(()) } }
    };
    process.spawn("upkeep", store::upkeep(pool, "upkeep", EVERY, process.stopping(), round));
    (process, rounds)
}

async fn until(rounds: &AtomicU32, least: u32) {
    eventually("rounds", PATIENCE, async || match rounds.load(Ordering::Relaxed) {
        begun if begun >= least => Ok(()),
        begun => Err(format!("{begun} were begun")),
    })
    .await;
}

#[tokio::test]
async fn one_replica_does_every_round_and_the_other_goes_on_when_it_stops() {
    let database = testkit::database().await;
    let (one, of_one) = replica(&database).await;
    until(&of_one, 1).await;
    let (other, of_other) = replica(&database).await;
    until(&of_one, 3).await;
    assert_eq!(of_other.load(Ordering::Relaxed), 0);
    one.stop().await;
    until(&of_other, 2).await;
    other.stop().await;
}
