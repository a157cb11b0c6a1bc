//! Releases side by side on one schema.

use lifecycle::Process;
use store::{Migration, Migrations};

const OLD: [Migration; 1] = [Migration { version: 1, description: "create", sql: "create table kept (id text)" }];
const NEW: [Migration; 2] =
    [OLD[0], Migration { version: 2, description: "add", sql: "alter table kept add column note text" }];

#[tokio::test]
async fn an_older_release_starts_on_the_schema_of_a_newer_one() {
    let (process, database) = (Process::for_test(), testkit::database().await);
    for migrations in [Migrations(&OLD), Migrations(&NEW), Migrations(&OLD), Migrations(&NEW)] {
        let pool = store::open(&process, &database, "kept", migrations).await.unwrap().work;
        sqlx::query("insert into kept (id) values ('a')").execute(&pool).await.unwrap();
    }
    process.stop().await;
}

#[tokio::test]
async fn a_migration_that_was_changed_after_it_was_applied_is_refused() {
    let (process, database) = (Process::for_test(), testkit::database().await);
    store::open(&process, &database, "kept", Migrations(&OLD)).await.unwrap();
    const CHANGED: [Migration; 1] = [Migration { sql: "create table kept (id bigint)", ..OLD[0] }];
    assert!(store::open(&process, &database, "kept", Migrations(&CHANGED)).await.is_err());
    process.stop().await;
}
