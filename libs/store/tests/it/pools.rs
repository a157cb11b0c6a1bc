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
    assert_eq!(store::search_fault(asked.unwrap_err()).code(), "query_too_slow");
    let asked = sleep(&pools.api).await;
    assert_eq!(store::fault(asked.unwrap_err()).kind(), fault::Kind::Unavailable);
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

/// A table into which each row takes half as long again as a transaction may.
async fn slow_table(pools: &Pools) {
    let table = "create table slow (n int check (pg_sleep(0.75)::text is not null))";
    sqlx::query(table).execute(&pools.work).await.unwrap();
}

async fn copy(pools: &Pools) -> sqlx::Result<()> {
    let mut transaction = pools.work.begin().await?;
    let mut rows = transaction.copy_in_raw("copy slow from stdin").await?;
    rows.send(&b"1\n"[..]).await?;
    rows.finish().await?;
    transaction.commit().await
}

/// Its answer is its own.
async fn is_right(pools: &Pools, number: i64) {
    let answer: i64 = sqlx::query_scalar("select $1::bigint + 1").bind(number).fetch_one(&pools.work).await.unwrap();
    assert_eq!(answer, number + 1);
}

#[tokio::test]
async fn after_a_copy_that_was_cut_off_the_next_questions_get_their_own_answers() {
    let process = Process::for_test();
    let pools = pools(&process, &testkit::database().await).await;
    slow_table(&pools).await;
    for round in 0..3 {
        let error = pools.bounded(copy(&pools)).await.unwrap_err();
        assert!(is_away(&error), "{error}");
        for number in 0..5 {
            is_right(&pools, round * 10 + number).await;
        }
    }
    process.stop().await;
}

#[tokio::test]
async fn what_is_dropped_from_outside_in_the_middle_gives_nothing_back_either() {
    let process = Process::for_test();
    let pools = pools(&process, &testkit::database().await).await;
    slow_table(&pools).await;
    let half = Duration::from_millis(250);
    assert!(tokio::time::timeout(half, pools.bounded(copy(&pools))).await.is_err());
    for number in 0..5 {
        is_right(&pools, number).await;
    }
    process.stop().await;
}

#[tokio::test]
async fn a_copy_to_a_server_that_fell_silent_holds_no_place_and_spoils_no_later_question() {
    let process = Process::for_test();
    let mut database = testkit::database().await;
    let gate = Gate::before(database.database_url.reveal()).await;
    database.database_url = Secret::from(gate.url().to_owned());
    let pools = pools(&process, &database).await;
    sqlx::query("create table kept (n int)").execute(&pools.work).await.unwrap();
    let cut = async {
        let mut transaction = pools.work.begin().await?;
        let mut rows = transaction.copy_in_raw("copy kept from stdin").await?;
        rows.send(&b"1\n"[..]).await?;
        gate.freeze();
        rows.finish().await?;
        transaction.commit().await
    };
    let error = pools.bounded(cut).await.unwrap_err();
    assert!(is_away(&error), "{error}");
    // Without being asked for seconds whether it lives.
    eventually("the silent connection's end", Duration::from_secs(3), async || match pools.work.size() {
        0 => Ok(()),
        size => Err(format!("{size} connections")),
    })
    .await;
    gate.open();
    for number in 0..5 {
        is_right(&pools, number).await;
    }
    let kept: i64 = sqlx::query_scalar("select count(*) from kept").fetch_one(&pools.work).await.unwrap();
    assert_eq!(kept, 0);
    process.stop().await;
}
