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
    assert_eq!((first.epoch, again.epoch), (1, 2));
    assert!(matches!(first.renew(&pool).await, Err(LeaseError::Lost)));
    again.renew(&pool).await.unwrap();
    again.release(&pool).await.unwrap();
    assert_eq!(Lease::acquire(&pool, "shard", other, TTL).await.unwrap().unwrap().epoch, 3);
    process.stop().await;
}
