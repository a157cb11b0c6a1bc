//! Who may do a thing now.

use std::time::Duration;

use lifecycle::Process;
use store::{Lease, LeaseError, Migrations};
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn who_takes_a_lease_again_gets_a_new_epoch_and_the_old_one_is_lost() {
    let process = Process::for_test();
    let pool = store::open(&process, &testkit::database().await, "kept", Migrations(&[])).await.unwrap().work;
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let first = Lease::acquire(&pool, "shard", one, TTL).await.unwrap().unwrap();
    assert!(Lease::acquire(&pool, "shard", other, TTL).await.unwrap().is_none());
    let again = Lease::acquire(&pool, "shard", one, TTL).await.unwrap().unwrap();
    assert_eq!(again.epoch, first.epoch + 1);
    assert!(matches!(first.renew(&pool).await, Err(LeaseError::Lost)));
    again.renew(&pool).await.unwrap();
    again.release(&pool).await.unwrap();
    assert_eq!(Lease::acquire(&pool, "shard", other, TTL).await.unwrap().unwrap().epoch, first.epoch + 2);
    process.stop().await;
}

#[tokio::test]
async fn a_lease_in_a_schema_that_was_made_anew_begins_above_the_old_one() {
    let process = Process::for_test();
    let pool = store::open(&process, &testkit::database().await, "kept", Migrations(&[])).await.unwrap().work;
    // Begun a year ago, and taken over every minute since.
    let old = "insert into leases (name, owner, epoch, expires_at)
               values ('shard', gen_random_uuid(), extract(epoch from now() - interval '1 year')::bigint + 525600, now())";
    sqlx::query(old).execute(&pool).await.unwrap();
    let old: i64 = sqlx::query_scalar("delete from leases returning epoch").fetch_one(&pool).await.unwrap();
    let anew = Lease::acquire(&pool, "shard", Uuid::new_v4(), TTL).await.unwrap().unwrap();
    assert!(anew.epoch > old, "{} after {old}", anew.epoch);
    process.stop().await;
}
