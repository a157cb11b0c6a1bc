//! What is over goes after its time.

use std::time::Duration;

use dispatcher::store::pruning::prune;
use sqlx::PgPool;
use testkit::eventually;

use crate::receiver::{Answer, Receiver};
use crate::support::{PATIENCE, RETENTION, Service, notification, settings};

/// Deliveries that are left, by alert and receiver.
async fn left(pool: &PgPool) -> Vec<String> {
    let query = "select alert_id || ' ' || receiver from deliveries order by 1";
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

async fn change(pool: &PgPool, statement: &'static str) {
    sqlx::query(statement).execute(pool).await.unwrap();
}

#[tokio::test]
async fn deliveries_that_are_over_go_and_what_is_pending_or_untold_or_fresh_stays() {
    let (settings, database, namespace) = (settings(), testkit::database().await, testkit::namespace());
    let (ops, stuck) = (Receiver::start([]).await, Receiver::start(vec![Answer::Status(503); 100]).await);
    let mut service = Service::start_on(&settings, &database, &namespace).await;
    service.create("ops", &ops.url()).await;
    service.create("stuck", &stuck.url()).await;
    for (alert, receivers) in
        [("old", &["ops"][..]), ("half", &["ops", "stuck"]), ("untold", &["ops"]), ("fresh", &["ops"])]
    {
        let told = notification(&service.tenant, alert, "firing", receivers);
        service.publish(&told).await;
        service.event().await;
    }
    let pool = service.pool.clone();
    service.process.stop().await;

    change(&pool, "update deliveries set finished_at = finished_at - interval '92 days' where alert_id <> 'fresh'")
        .await;
    change(&pool, "update notifications set arrived_at = arrived_at - interval '92 days'").await;
    change(&pool, "update heard set heard_at = heard_at - interval '92 days' where group_id like '%-old'").await;
    let untold = "insert into outgoing (id, topic, key, tenant, payload)
                  select id, 'deliveries', 'k', 't', '' from deliveries where alert_id = 'untold'";
    change(&pool, untold).await;
    let pruned = [("deliveries", 2), ("notifications", 1), ("heard", 1), ("outgoing", 0)];
    assert_eq!(prune(pool.clone(), RETENTION).await.unwrap(), pruned);
    assert_eq!(left(&pool).await, ["fresh ops", "half stuck", "untold ops"]);
    let tried = "select count(distinct delivery_id) from attempts";
    assert_eq!(sqlx::query_scalar::<_, i64>(tried).fetch_one(&pool).await.unwrap(), 3);

    change(&pool, "update deliveries set finished_at = finished_at - interval '92 days' where alert_id = 'fresh'")
        .await;
    let service = Service::start_on(&settings, &database, &namespace).await;
    eventually("the service's own round", PATIENCE, async || {
        let left = left(&pool).await;
        if left.iter().any(|delivery| delivery == "fresh ops") { Err(format!("{left:?}")) } else { Ok(()) }
    })
    .await;
    service.process.stop().await;
}

#[tokio::test]
async fn a_notification_that_waited_longer_than_is_remembered_is_sent_to_nobody() {
    let mut forgetful = settings();
    forgetful.delivery_retention = Duration::ZERO;
    let mut receiver = Receiver::start([]).await;
    let mut service = Service::start_with(&forgetful).await;
    service.create("ops", &receiver.url()).await;
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    service.publish(&told).await;
    eventually("the answer to the broker", PATIENCE, async || {
        let accounts = service.bus.account().await.map_err(|error| error.to_string())?;
        let account = accounts.into_iter().find(|account| account.stream.ends_with("NOTIFICATIONS")).unwrap();
        if account.dead == 1 && account.in_flight == 0 { Ok(()) } else { Err(format!("{account:?}")) }
    })
    .await;
    assert!(left(&service.pool).await.is_empty() && receiver.is_quiet());
    service.process.stop().await;
}
