//! Who is there, by heartbeats.

use std::time::Duration;

use settings::Secret;
use testkit::{Gate, until_missing, until_ready};

use crate::support::{OFFLINE_AFTER, SOON, Site, nanos, step, until};

#[tokio::test]
async fn silence_makes_idle_then_offline_and_a_heartbeat_brings_it_back() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start().await;
    let (seen, beating, mut changes) = site.beating_host(&tenant).await;
    drop(beating);
    assert_eq!(changes.next_step().await, step("status_changed", "online", "idle"));
    assert_eq!(changes.next_step().await, step("offline", "idle", "offline"));
    let gone = registry.until_status(&tenant, &seen.id, "offline").await;
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
    let (seen, _beating, mut changes) = site.beating_host(&tenant).await;
    registry.until_seen_after(&tenant, &seen.id, seen.seen_unix_nano + nanos(OFFLINE_AFTER * 2)).await;
    site.announces_nothing(&tenant, &mut changes).await;
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn redis_that_loses_its_memory_takes_nobody_offline() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let idle_after = Duration::from_secs(2);
    let registry = site.start_with(idle_after, idle_after * 3).await;
    let (seen, beating, mut changes) = site.beating_host(&tenant).await;
    registry.until_status(&tenant, &seen.id, "online").await;
    drop(beating);
    let last = site.last_beat(&tenant, &seen.id).await;
    // A gateway's next heartbeat is on its way for longer than silence is borne, but not since Redis forgot.
    until(last + idle_after * 3 / 4).await;
    site.flush().await;
    until(last + idle_after * 5 / 4).await;
    let beating = site.beat(&tenant, &seen.id).await;
    // By then the time is over in which silence proves nothing.
    registry.until_seen_after(&tenant, &seen.id, nanos(last + idle_after * 9 / 4)).await;
    site.announces_nothing(&tenant, &mut changes).await;
    drop(beating);
    let idle = loop {
        let resource = changes.next().await.resource.unwrap();
        if resource.id == seen.id {
            break resource.status;
        }
    };
    assert_eq!(idle, "idle", "silence counts again");
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn a_restart_during_which_everybody_went_on_beating_changes_nothing() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start().await;
    let (seen, _beating, mut changes) = site.beating_host(&tenant).await;
    let before = registry.until_status(&tenant, &seen.id, "online").await;
    registry.stop().await;
    until(Duration::from_nanos(before.last_seen_unix_nano) + OFFLINE_AFTER * 3 / 2).await;
    let registry = site.start().await;
    registry.until_seen_after(&tenant, &seen.id, before.last_seen_unix_nano).await;
    site.announces_nothing(&tenant, &mut changes).await;
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn another_replica_takes_over_and_repeats_nothing() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let one = site.start().await;
    let (_seen, beating, mut changes) = site.beating_host(&tenant).await;
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
    let (seen, _beating, mut changes) = site.beating_host(&tenant).await;
    until_ready(&registry.process, SOON).await;
    redis.close();
    let reason = until_missing(&registry.process, "redis", SOON).await;
    assert!(reason.contains("every status stays"), "{reason}");
    // Longer silent than any silence is borne.
    until(site.last_beat(&tenant, &seen.id).await + OFFLINE_AFTER * 2).await;
    assert_eq!(registry.get(&tenant, &seen.id).await.unwrap().status, "online");
    redis.open();
    until_ready(&registry.process, SOON).await;
    let _beating = site.beat(&tenant, &seen.id).await;
    site.announces_nothing(&tenant, &mut changes).await;
    registry.stop().await;
    site.stop().await;
}
