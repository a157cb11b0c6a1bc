//! Waits on Postgres that end.

use std::time::Duration;

use lifecycle::Process;
use settings::Secret;
use store::{Migrations, Pools, is_away};
use testkit::{Gate, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

async fn sleep(pool: &store::Pool) -> sqlx::Result<()> {
    sqlx::query("select pg_sleep(60)").execute(pool).await.map(|_| ())
}

/// Pools of one connection each, with short limits.
async fn pools(process: &Process, database: &store::Settings) -> Pools {
    let short = store::Settings {
        database_connections: 1,
        database_api_connections: 1,
        database_query_timeout: Duration::from_millis(200),
        database_transaction_timeout: Duration::from_millis(500),
        ..database.clone()
    };
    let ready = process.ready("postgres");
    store::connect(&short, "kept", Migrations(&[]), &ready).await.unwrap()
}

#[tokio::test]
async fn a_slow_question_ends_and_takes_nothing_from_the_work() {
    let process = Process::for_test();
    let pools = pools(&process, &testkit::database().await).await;
    let (asked, worked) = tokio::join!(sleep(&pools.api), sqlx::query("select 1").execute(&pools.work));
    worked.unwrap();
    assert_eq!(store::fault(asked.unwrap_err()).code(), "query_too_slow");
    process.stop().await;
}

#[tokio::test]
async fn a_silent_server_holds_no_transaction_and_no_connection_for_ever() {
    let process = Process::for_test();
    let mut database = testkit::database().await;
    let gate = Gate::before(database.database_url.reveal()).await;
    database.database_url = Secret::from(gate.url().to_owned());
    let pools = pools(&process, &database).await;
    sqlx::query("select 1").execute(&pools.work).await.unwrap();

    let mut held = pools.work.begin().await.unwrap();
    gate.freeze();
    let error = pools.bounded(sqlx::query("select 1").execute(&mut *held)).await.unwrap_err();
    assert!(is_away(&error), "{error}");
    drop(held);
    // The pool has room for one connection: the silent one must have given its place up.
    eventually("the silent connection's end", PATIENCE, async || match pools.work.size() {
        0 => Ok(()),
        size => Err(format!("{size} connections")),
    })
    .await;
    gate.open();
    pools.bounded(sqlx::query("select 1").execute(&pools.work)).await.unwrap();
    process.stop().await;
}
