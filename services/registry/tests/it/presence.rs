//! Who is there, by heartbeats.

use std::time::Duration;

use proto::registry::Resource;
use settings::Secret;
use testkit::{Gate, eventually, until_missing, until_ready};

use crate::support::{Changes, OFFLINE_AFTER, SOON, Site, host};

fn step(change: &str, before: &str, after: &str) -> (String, String, String) {
    (change.to_owned(), before.to_owned(), after.to_owned())
}

#[tokio::test]
async fn silence_makes_idle_then_offline_and_a_heartbeat_brings_it_back() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start().await;
    let mut changes = site.changes().await;
    let seen = host(&tenant, "web-1");
    let beating = site.beat(&tenant, &seen.id).await;
    site.publish(&seen).await;
    assert_eq!(changes.next_step().await, step("registered", "", "online"));
    drop(beating);
    assert_eq!(changes.next_step().await, step("status_changed", "online", "idle"));
    assert_eq!(changes.next_step().await, step("offline", "idle", "offline"));
    let gone: Resource = registry.until_status(&tenant, &seen.id, "offline").await;
    let _beating = site.beat(&tenant, &seen.id).await;
    assert_eq!(changes.next_step().await, step("back_online", "offline", "online"));
    let back = registry.until_status(&tenant, &seen.id, "online").await;
    assert!(back.last_seen_unix_nano > gone.last_seen_unix_nano);
    assert_eq!(back.first_seen_unix_nano, seen.seen_unix_nano);
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn last_seen_follows_the_heartbeats_and_nothing_else_is_announced() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start().await;
    let mut changes = site.changes().await;
    let seen = host(&tenant, "web-1");
    let _beating = site.beat(&tenant, &seen.id).await;
    site.publish(&seen).await;
    let later = seen.seen_unix_nano + u64::try_from((OFFLINE_AFTER * 2).as_nanos()).unwrap();
    eventually("last seen moves on", SOON, async || {
        let resource = registry.get(&tenant, &seen.id).await.map_err(|fault| fault.to_string())?;
        if resource.last_seen_unix_nano > later { Ok(()) } else { Err(format!("{resource:?}")) }
    })
    .await;
    site.publish(&host(&tenant, "web-2")).await;
    assert_eq!(changes.next().await.resource.unwrap().name, "web-1");
    assert_eq!(changes.next().await.resource.unwrap().name, "web-2", "nothing in between");
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn redis_that_loses_its_memory_takes_nobody_offline() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let idle_after = Duration::from_secs(2);
    let registry = site.start_with(idle_after, idle_after * 3).await;
    let mut changes = site.changes().await;
    let seen = host(&tenant, "web-1");
    let beating = site.beat(&tenant, &seen.id).await;
    site.publish(&seen).await;
    assert_eq!(changes.next_step().await, step("registered", "", "online"));
    registry.until_status(&tenant, &seen.id, "online").await;
    drop(beating);
    // A gateway's next heartbeat is on its way for longer than silence is borne, but not since Redis forgot.
    tokio::time::sleep(idle_after * 3 / 4).await;
    site.flush().await;
    tokio::time::sleep(idle_after / 2).await;
    let beating = site.beat(&tenant, &seen.id).await;
    tokio::time::sleep(idle_after).await;
    site.publish(&host(&tenant, "web-2")).await;
    assert_eq!(changes.next().await.resource.unwrap().name, "web-2", "nothing before that");
    drop(beating);
    let step = async |changes: &mut Changes| loop {
        let resource = changes.next().await.resource.unwrap();
        if resource.id == seen.id {
            break resource.status;
        }
    };
    assert_eq!(step(&mut changes).await, "idle", "silence counts again");
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn a_restart_during_which_everybody_went_on_beating_changes_nothing() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start().await;
    let mut changes = site.changes().await;
    let seen = host(&tenant, "web-1");
    let _beating = site.beat(&tenant, &seen.id).await;
    site.publish(&seen).await;
    assert_eq!(changes.next_step().await, step("registered", "", "online"));
    let before = registry.until_status(&tenant, &seen.id, "online").await;
    registry.stop().await;
    tokio::time::sleep(OFFLINE_AFTER).await;
    let registry = site.start().await;
    eventually("the next sign of life", SOON, async || {
        let resource = registry.get(&tenant, &seen.id).await.map_err(|fault| fault.to_string())?;
        if resource.last_seen_unix_nano > before.last_seen_unix_nano { Ok(()) } else { Err(format!("{resource:?}")) }
    })
    .await;
    site.publish(&host(&tenant, "web-2")).await;
    assert_eq!(changes.next().await.resource.unwrap().name, "web-2", "nothing before that");
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn another_replica_takes_over_and_repeats_nothing() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let one = site.start().await;
    let mut changes = site.changes().await;
    let seen = host(&tenant, "web-1");
    let beating = site.beat(&tenant, &seen.id).await;
    site.publish(&seen).await;
    assert_eq!(changes.next_step().await, step("registered", "", "online"));
    let other = site.start().await;
    one.stop().await;
    drop(beating);
    assert_eq!(changes.next_step().await, step("status_changed", "online", "idle"));
    assert_eq!(changes.next_step().await, step("offline", "idle", "offline"));
    other.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn while_redis_is_away_nothing_is_judged_and_readiness_says_why() {
    let (mut site, tenant) = (Site::new().await, testkit::tenant());
    let redis = Gate::before(site.redis_url.reveal()).await;
    site.redis_url = Secret::from(redis.url().to_owned());
    let registry = site.start().await;
    let mut changes = site.changes().await;
    let seen = host(&tenant, "web-1");
    let _beating = site.beat(&tenant, &seen.id).await;
    site.publish(&seen).await;
    assert_eq!(changes.next_step().await, step("registered", "", "online"));
    until_ready(&registry.process, SOON).await;
    redis.close();
    let reason = until_missing(&registry.process, "redis", SOON).await;
    assert!(reason.contains("every status stays"), "{reason}");
    // That nothing happens shows only when enough time has passed for it.
    tokio::time::sleep(OFFLINE_AFTER * 2).await;
    assert_eq!(registry.get(&tenant, &seen.id).await.unwrap().status, "online");
    redis.open();
    until_ready(&registry.process, SOON).await;
    let _beating = site.beat(&tenant, &seen.id).await;
    site.publish(&host(&tenant, "web-2")).await;
    let next = changes.next().await.resource.unwrap();
    assert_eq!(next.name, "web-2", "{next:?}");
    registry.stop().await;
    site.stop().await;
}
