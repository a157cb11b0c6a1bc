//! What errors of Postgres mean.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use store::{is_away, is_poison};

async fn connect() -> PgConnection {
    let options = PgConnectOptions::from_str(testkit::database().await.database_url.reveal()).unwrap();
    PgConnection::connect_with(&options).await.unwrap()
}

#[tokio::test]
async fn what_a_row_is_to_blame_for_is_told_from_what_passes_and_from_what_somebody_must_put_right() {
    let mut postgres = connect().await;
    postgres.execute("create table kept (id text primary key); insert into kept values ('a')").await.unwrap();
    let poison = [
        ("a key that is there", "insert into kept values ('a')"),
        (
            "an index entry that is too long",
            "insert into kept select string_agg(md5(n::text), '') from generate_series(1, 1000) n",
        ),
        ("a number out of range", "select 3000000000::int"),
        (
            "one row changed twice",
            "insert into kept values ('b'), ('b') on conflict (id) do update set id = excluded.id",
        ),
    ];
    for (what, sql) in poison {
        let error = postgres.execute(sql).await.unwrap_err();
        assert!(is_poison(&error) && !is_away(&error), "{what}: {error}");
    }
    for (what, sql) in [("a table that is not there", "select * from gone"), ("no SQL", "selct 1")] {
        let error = postgres.execute(sql).await.unwrap_err();
        assert!(!is_poison(&error) && !is_away(&error), "{what}: {error}");
    }
    let error = postgres.execute("select pg_terminate_backend(pg_backend_pid())").await.unwrap_err();
    assert!(is_away(&error) && !is_poison(&error), "{error}");
}

#[tokio::test]
async fn a_row_that_this_release_cannot_read_is_no_fault_of_the_message() {
    let mut postgres = connect().await;
    let read: sqlx::Result<i64> = sqlx::query_scalar("select 'tomorrow'::text").fetch_one(&mut postgres).await;
    let error = read.unwrap_err();
    assert!(!is_poison(&error) && !is_away(&error), "{error}");
    assert!(!is_poison(&sqlx::Error::Decode("a state of tomorrow".into())));
}
