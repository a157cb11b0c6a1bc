//! Whom silence proves what: gateways that are away, sources that report seldom, replicas that are cut off, newer releases.

use std::time::Duration;

use model::identify;
use proto::registry::ResourceSeen;
use settings::Secret;
use sqlx::Row as _;
use testkit::{Gate, eventually, until_missing, until_ready};

use crate::support::{IDLE_AFTER, OFFLINE_AFTER, Registry, SOON, Site, host, nanos, step, until};

/// A program without a host: what it is called is all that is known of it.
fn program(tenant: &str) -> ResourceSeen {
    let labels = [("service.name", "shop"), ("service.instance.id", "1")];
    let id = identify(tenant, labels).id.to_string();
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    ResourceSeen { id, kind: "app".to_owned(), labels, ..host(tenant, "shop") }
}

#[tokio::test]
async fn while_no_gateway_is_there_nobody_is_silent_and_then_everybody_has_their_time() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let gateway = site.gateway().await;
    let settings = registry::config::Settings { gateways_away_after: Duration::from_millis(300), ..site.settings() };
    let registry = site.start_as(settings).await;
    let (seen, beating, mut changes) = site.beating_host(&tenant).await;
    // All agents fall silent, since the gateways are gone.
    drop((beating, gateway));
    until(site.last_beat(&tenant, &seen.id).await + OFFLINE_AFTER * 2).await;
    assert_eq!(registry.get(&tenant, &seen.id).await.unwrap().status, "online");
    assert_eq!(registry.metric("sightline_registry_deaf"), Some(1));
    let _gateway = site.gateway().await;
    let beating = site.beat(&tenant, &seen.id).await;
    site.announces_nothing(&tenant, &mut changes).await;
    // Silent while a gateway is there: its own silence.
    drop(beating);
    loop {
        let change = changes.next().await;
        let resource = change.resource.unwrap();
        if resource.id == seen.id {
            assert_eq!((change.change.as_str(), resource.status.as_str()), ("status_changed", "idle"));
            break;
        }
    }
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn a_program_that_reports_seldom_is_online_from_report_to_report() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let every = OFFLINE_AFTER * 2;
    let settings = registry::config::Settings { first_interval: every, ..site.settings() };
    let registry = site.start_as(settings).await;
    let mut changes = site.changes().await;
    let seen = program(&tenant);
    site.beat_once(&tenant, &seen.id).await;
    site.publish(&seen).await;
    assert_eq!(changes.next_step().await, step("registered", "", "online"));
    for _ in 0..2 {
        until(site.last_beat(&tenant, &seen.id).await + every).await;
        site.beat_once(&tenant, &seen.id).await;
    }
    site.announces_nothing(&tenant, &mut changes).await;
    assert_eq!(registry.get(&tenant, &seen.id).await.unwrap().status, "online");
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn who_takes_over_while_redis_was_away_gives_everybody_their_own_time_too() {
    let (mut site, tenant) = (Site::new().await, testkit::tenant());
    let direct = site.redis_url.clone();
    let gate = Gate::before(direct.reveal()).await;
    site.redis_url = Secret::from(gate.url().to_owned());
    let every = Duration::from_secs(2);
    let settings = registry::config::Settings { first_interval: every, ..site.settings() };
    let one = site.start_as(settings.clone()).await;
    one.until_metric("sightline_registry_leading", 1).await;
    let other = site.start_as(settings).await;
    site.redis_url = direct;
    let (seen, mut changes) = (program(&tenant), site.changes().await);
    site.beat_once(&tenant, &seen.id).await;
    site.publish(&seen).await;
    assert_eq!(changes.next_step().await, step("registered", "", "online"));
    gate.close();
    until_missing(&other.process, "redis", SOON).await;
    one.stop().await;
    // The report that was due then found no Redis.
    until(site.last_beat(&tenant, &seen.id).await + every * 3).await;
    gate.open();
    other.until_metric("sightline_registry_leading", 1).await;
    tokio::time::sleep(IDLE_AFTER * 2).await;
    site.beat_once(&tenant, &seen.id).await;
    site.announces_nothing(&tenant, &mut changes).await;
    other.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn a_sign_of_life_is_shown_and_not_written() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start().await;
    let (seen, _beating, _changes) = site.beating_host(&tenant).await;
    let mut tables = site.tables().await;
    let row = async |tables: &mut sqlx::PgConnection| -> (String, i64) {
        let sql = "select xmin::text as version, last_seen from resources where tenant = $1";
        let row = sqlx::query(sql).bind(&tenant).fetch_one(tables).await.unwrap();
        (row.get("version"), row.get("last_seen"))
    };
    let before = row(&mut tables).await;
    registry.until_seen_after(&tenant, &seen.id, seen.seen_unix_nano + nanos(OFFLINE_AFTER * 2)).await;
    site.publish(&ResourceSeen { seen_unix_nano: testkit::now(), ..seen.clone() }).await;
    registry.until_metric("sightline_registry_sightings_total{outcome=\"known\"}", 1).await;
    assert_eq!(row(&mut tables).await, before, "neither heartbeats nor a description that is known write anything");
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_from_redis_leaves_judging_to_another() {
    let (mut site, tenant) = (Site::new().await, testkit::tenant());
    let direct = site.redis_url.clone();
    let gate = Gate::before(direct.reveal()).await;
    site.redis_url = Secret::from(gate.url().to_owned());
    let cut_off = site.start().await;
    cut_off.until_metric("sightline_registry_leading", 1).await;
    site.redis_url = direct;
    let other = site.start().await;
    let (_seen, beating, mut changes) = site.beating_host(&tenant).await;
    gate.freeze();
    other.until_metric("sightline_registry_leading", 1).await;
    drop(beating);
    assert_eq!(changes.next_step().await, step("status_changed", "online", "idle"));
    assert_eq!(changes.next_step().await, step("offline", "idle", "offline"));
    gate.open();
    cut_off.stop().await;
    other.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn sweeps_that_are_slow_judge_all_the_same() {
    let (mut site, tenant) = (Site::new().await, testkit::tenant());
    let gate = Gate::before(site.database.database_url.reveal()).await;
    site.database.database_url = Secret::from(gate.url().to_owned());
    let registry = site.start().await;
    let (_seen, beating, mut changes) = site.beating_host(&tenant).await;
    // A sweep asks Postgres several things, so it takes longer than silence is borne.
    gate.slow(IDLE_AFTER / 2);
    drop(beating);
    let mut status = String::new();
    while status != "offline" {
        status = changes.next_step().await.2;
    }
    gate.open();
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_from_postgres_writes_nothing_when_it_comes_back() {
    let (mut site, tenant) = (Site::new().await, testkit::tenant());
    let direct = site.database.database_url.clone();
    let gate = Gate::before(direct.reveal()).await;
    site.database.database_url = Secret::from(gate.url().to_owned());
    let cut_off = site.start().await;
    cut_off.until_metric("sightline_registry_leading", 1).await;
    site.database.database_url = direct;
    let other = site.start().await;
    let (_seen, beating, mut changes) = site.beating_host(&tenant).await;
    gate.freeze();
    other.until_metric("sightline_registry_leading", 1).await;
    drop(beating);
    assert_eq!(changes.next_step().await, step("status_changed", "online", "idle"));
    assert_eq!(changes.next_step().await, step("offline", "idle", "offline"));
    gate.open();
    until_ready(&cut_off.process, SOON).await;
    site.announces_nothing(&tenant, &mut changes).await;
    cut_off.stop().await;
    other.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn after_connections_to_postgres_fell_silent_for_good_it_judges_on_new_ones() {
    let (mut site, tenant) = (Site::new().await, testkit::tenant());
    let gate = Gate::before(site.database.database_url.reveal()).await;
    site.database.database_url = Secret::from(gate.url().to_owned());
    site.database.database_transaction_timeout = Duration::from_secs(1);
    let registry = site.start().await;
    let (_seen, beating, mut changes) = site.beating_host(&tenant).await;
    gate.abandon();
    drop(beating);
    let mut status = String::new();
    while status != "offline" {
        status = changes.next_step().await.2;
    }
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn a_status_that_only_a_newer_release_knows_is_shown_and_left_alone() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start().await;
    let (seen, beating, mut changes) = site.beating_host(&tenant).await;
    let sql = "update resources set status = 'maintenance' where tenant = $1";
    sqlx::query(sql).bind(&tenant).execute(&mut site.tables().await).await.unwrap();
    drop(beating);
    until(site.last_beat(&tenant, &seen.id).await + OFFLINE_AFTER * 2).await;
    let _beating = site.beat(&tenant, &seen.id).await;
    site.announces_nothing(&tenant, &mut changes).await;
    assert_eq!(registry.get(&tenant, &seen.id).await.unwrap().status, "maintenance");
    assert_eq!(registry.list(&tenant, r#"{status="maintenance"}"#).await.unwrap().len(), 1);
    registry.stop().await;
    site.stop().await;
}

#[tokio::test]
async fn a_whole_site_that_falls_silent_is_told_one_by_one_and_once() {
    const HOSTS: u64 = 2_500;
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start().await;
    let sql =
        "insert into resources (tenant, id, kind, name, labels, facts, agent_id, parent_id, first_seen, described_at,
                                      status, last_seen, report_interval)
               select $1, 'host-' || n, 'host', 'web-' || n, '{}', '{}', '', '', $2, $2, 'online', $2, 0
               from generate_series(1, $3) n";
    let (seen, hosts) = (i64::try_from(testkit::now()).unwrap(), i64::try_from(HOSTS).unwrap());
    sqlx::query(sql).bind(&tenant).bind(seen).bind(hosts).execute(&mut site.tables().await).await.unwrap();
    registry.until_metric("sightline_registry_changes_total{change=\"offline\"}", HOSTS).await;
    let idle = registry.metric("sightline_registry_changes_total{change=\"status_changed\"}").unwrap_or_default();
    assert!(idle <= HOSTS, "each at most once: {idle}");
    registry.until_metric("sightline_registry_outgoing_total{outcome=\"published\"}", idle + HOSTS).await;
    let offline = registry.list(&tenant, r#"{status="offline"}"#).await.unwrap();
    assert_eq!(offline.len(), 100, "a page of them");
    registry.stop().await;
    site.stop().await;
}

async fn is_gone(registry: &Registry, tenant: &str, id: &str) {
    eventually("the resource is forgotten", SOON, async || match registry.get(tenant, id).await {
        Err(fault) if fault.kind() == fault::Kind::NotFound => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn what_is_offline_for_long_is_forgotten_unless_somebody_has_tagged_it() {
    let (site, tenant) = (Site::new().await, testkit::tenant());
    let registry = site.start().await;
    let mut changes = site.changes().await;
    let (plain, tagged) = (host(&tenant, "web-1"), host(&tenant, "web-2"));
    for seen in [&plain, &tagged] {
        site.publish(seen).await;
        assert_eq!(changes.next_step().await, step("registered", "", "online"));
    }
    let sql = "update resources set tags = '{\"owner\":\"ann\"}' where tenant = $1 and name = 'web-2'";
    sqlx::query(sql).bind(&tenant).execute(&mut site.tables().await).await.unwrap();
    registry.until_status(&tenant, &plain.id, "offline").await;
    registry.until_status(&tenant, &tagged.id, "offline").await;
    registry.stop().await;
    let settings = registry::config::Settings { resource_retention: OFFLINE_AFTER, ..site.settings() };
    let registry = site.start_as(settings).await;
    is_gone(&registry, &tenant, &plain.id).await;
    let forgotten = loop {
        let change = changes.next().await;
        if change.change == "forgotten" {
            break change;
        }
    };
    assert_eq!((forgotten.resource.unwrap().id, forgotten.previous_status), (plain.id.clone(), "offline".to_owned()));
    assert_eq!(registry.get(&tenant, &tagged.id).await.unwrap().status, "offline");
    // It is new when it comes back.
    site.publish(&host(&tenant, "web-1")).await;
    assert_eq!(changes.next_step().await, step("registered", "", "online"));
    registry.stop().await;
    site.stop().await;
}
