//! Postgres goes away and comes back.

use settings::Secret;
use testkit::{Gate, until_missing, until_ready};

use crate::support::{PATIENCE, Service};

#[tokio::test]
async fn transitions_wait_while_postgres_is_away_and_the_process_says_so() {
    let mut database = testkit::database().await;
    let gate = Gate::before(database.database_url.reveal()).await;
    database.database_url = Secret::from(gate.url().to_owned());
    let mut service = Service::start_on(&database, &testkit::namespace()).await;
    let first = service.transition("firing", "a", 10);
    service.publish(&first).await;
    service.told().await;

    gate.close();
    let second = service.after(&first, "resolved", 20);
    service.publish(&second).await;
    until_missing(&service.process, "postgres", PATIENCE).await;

    gate.open();
    assert_eq!(service.told().await.state, "resolved");
    until_ready(&service.process, PATIENCE).await;
    service.process.stop().await;
}
