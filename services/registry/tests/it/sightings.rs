//! What becomes of `resource.seen`.

use testkit::eventually;

use crate::support::{SOON, Site, host};

#[tokio::test]
async fn what_was_seen_is_listed_and_announced() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start_patient().await;
    let mut changes = site.changes().await;
    let seen = host(&tenant, "web-1");
    site.publish(&seen).await;
    let resource = registry.until_listed(&tenant, 1).await.remove(0);
    assert_eq!((resource.id.as_str(), resource.kind.as_str(), resource.name.as_str()), (&*seen.id, "host", "web-1"));
    assert_eq!((resource.labels.clone(), resource.agent_id.as_str()), (seen.labels, "agent-of-web-1"));
    assert_eq!((resource.status.as_str(), resource.first_seen_unix_nano), ("online", seen.seen_unix_nano));
    let change = changes.next().await;
    assert_eq!((change.change.as_str(), change.previous_status.as_str(), change.tenant), ("registered", "", tenant));
    assert_eq!(change.resource, Some(resource));
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn seeing_the_same_again_announces_nothing_and_seeing_other_labels_does() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start_patient().await;
    let mut changes = site.changes().await;
    let mut seen = host(&tenant, "web-1");
    site.publish(&seen).await;
    site.publish(&seen).await;
    seen.seen_unix_nano += 1;
    site.publish(&seen).await;
    seen.seen_unix_nano += 1;
    seen.labels.insert("os.type".into(), "plan9".into());
    site.publish(&seen).await;
    assert_eq!(changes.next().await.change, "registered");
    let change = changes.next().await;
    assert_eq!(change.change, "labels_changed");
    assert_eq!(change.resource.unwrap().labels["os.type"], "plan9");
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn the_newest_sighting_wins_in_whatever_order_they_come() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start_patient().await;
    let newest = host(&tenant, "web-1");
    let mut older = newest.clone();
    older.seen_unix_nano -= 5_000_000_000;
    older.labels.insert("os.type".into(), "cp/m".into());
    site.publish(&newest).await;
    registry.until_listed(&tenant, 1).await;
    site.publish(&older).await;
    let resource = eventually("the earlier time", SOON, async || {
        let resource = registry.get(&tenant, &newest.id).await.map_err(|fault| fault.to_string())?;
        if resource.first_seen_unix_nano == older.seen_unix_nano { Ok(resource) } else { Err(format!("{resource:?}")) }
    })
    .await;
    assert_eq!(resource.labels["os.type"], "linux");
    assert_eq!(resource.last_seen_unix_nano, newest.seen_unix_nano);
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_when_a_resource_was_first_seen_and_misses_nothing() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start_patient().await;
    let first = host(&tenant, "web-1");
    site.publish(&first).await;
    registry.until_listed(&tenant, 1).await;
    registry.stop().await;
    let again = host(&tenant, "web-1");
    site.publish(&again).await;
    site.publish(&host(&tenant, "web-2")).await;
    let registry = site.start_patient().await;
    registry.until_listed(&tenant, 2).await;
    let resource = registry.get(&tenant, &first.id).await.unwrap();
    assert_eq!(resource.first_seen_unix_nano, first.seen_unix_nano);
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn what_can_never_be_read_is_a_dead_letter_and_stops_nobody() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start_patient().await;
    let mut dead = site.bus.follow(bus::Stream::Dead, bus::From::New).await;
    site.publish_bytes(b"\xff\xff\xff".to_vec()).await;
    let mut nul = host(&tenant, "web-1");
    nul.labels.insert("no\0te".into(), "a\0b".into());
    site.publish(&nul).await;
    registry.until_listed(&tenant, 1).await;
    let letter = tokio::time::timeout(SOON, dead.next()).await.unwrap();
    assert!(letter.header("Sl-Dead-Reason").unwrap().contains("ResourceSeen"));
    assert_eq!(letter.payload().as_ref(), b"\xff\xff\xff");
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn a_flood_of_sightings_is_shared_by_replicas_and_each_is_announced_once() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let (one, other) = tokio::join!(site.start_patient(), site.start_patient());
    let mut changes = site.changes().await;
    let hosts: Vec<_> = (0..300).map(|n| host(&tenant, &format!("web-{}", n % 100))).collect();
    for seen in &hosts {
        site.publish(seen).await;
    }
    one.until_listed(&tenant, 100).await;
    let mut names = std::collections::HashSet::new();
    for _ in 0..100 {
        let change = changes.next().await;
        assert_eq!(change.change, "registered");
        assert!(names.insert(change.resource.unwrap().name));
    }
    tokio::join!(one.stop(), other.stop());
    site.stop().await;
}
