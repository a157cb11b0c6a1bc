//! Receivers: creating and listing.

use authn::Permission;
use dispatcher::config::Settings;
use dispatcher::store::adding::{self, Patience};
use fault::Kind;
use proto::dispatch::{
    CreateReceiverRequest, ListReceiversRequest, RotateSecretRequest, UpdateReceiverRequest, Webhook,
};
use testkit::{eventually, now};
use tokio::task::JoinSet;

use crate::receiver::{Answer, Receiver};
use crate::support::{PATIENCE, RETENTION, Service, notification, request, settings};

const URL: &str = "https://hooks.example.org/";

#[tokio::test]
async fn a_secret_is_made_shown_once_and_never_listed() {
    let mut service = Service::start().await;
    let created = service.create("ops", URL).await;
    assert!(created.webhook.unwrap().secret.starts_with("whsec_"));
    let token = testkit::admin_token(&service.tenant);
    let (listed, _) = service.receivers_as(ListReceiversRequest::default(), &token).await.unwrap();
    assert_eq!((listed[0].id.as_str(), listed[0].name.as_str()), (created.id.as_str(), "ops"));
    assert_eq!(listed[0].webhook, Some(Webhook { url: URL.into(), secret: String::new() }));
    assert_eq!(service.receiver("ops").await.unwrap(), listed[0]);
    service.process.stop().await;
}

#[tokio::test]
async fn a_name_is_taken_once_in_a_tenant() {
    let mut service = Service::start().await;
    service.create("ops", URL).await;
    let fault = service.try_create(request("ops", URL)).await.unwrap_err();
    assert_eq!((fault.kind(), fault.code()), (Kind::Conflict, "receiver_exists"));
    let elsewhere = testkit::admin_token("somebody-else");
    service.create_as(request("ops", URL), &elsewhere).await.unwrap();
    service.process.stop().await;
}

#[tokio::test]
async fn a_repeat_with_the_same_key_is_answered_with_the_first_receiver() {
    let mut service = Service::start().await;
    let keyed = |name: &str| CreateReceiverRequest { idempotency_key: "k".into(), ..request(name, URL) };
    let first = service.try_create(keyed("ops")).await.unwrap();
    assert_eq!(service.try_create(keyed("ops")).await.unwrap(), first);
    let fault = service.try_create(keyed("other")).await.unwrap_err();
    assert_eq!((fault.kind(), fault.code()), (Kind::Conflict, "idempotency_key_reused"));
    service.process.stop().await;
}

#[tokio::test]
async fn receivers_are_listed_by_name_in_pages_to_those_who_may() {
    let mut service = Service::start().await;
    for name in ["b", "a", "c-1", "c.1"] {
        service.create(name, URL).await;
    }
    let token = testkit::tokens().user(&service.tenant, &[Permission::ReceiversRead]);
    let mut names = Vec::new();
    let mut request_page = ListReceiversRequest { limit: 3, ..Default::default() };
    loop {
        let (items, next) = service.receivers_as(request_page.clone(), &token).await.unwrap();
        names.extend(items.into_iter().map(|receiver| receiver.name));
        if next.is_empty() {
            break;
        }
        request_page.cursor = next;
    }
    assert_eq!(names, ["a", "b", "c-1", "c.1"]);
    assert_eq!(service.create_as(request("d", URL), &token).await.unwrap_err().kind(), Kind::Forbidden);
    let elsewhere = testkit::admin_token("somebody-else");
    assert!(service.receivers_as(ListReceiversRequest::default(), &elsewhere).await.unwrap().0.is_empty());
    service.process.stop().await;
}

#[tokio::test]
async fn a_request_without_a_webhook_is_told_what_to_write() {
    let mut service = Service::start().await;
    let empty = CreateReceiverRequest { webhook: None, ..request("ops", URL) };
    assert!(service.try_create(empty).await.unwrap_err().detail().starts_with("webhook: "));
    service.process.stop().await;
}

#[tokio::test]
async fn a_receiver_is_changed_by_who_has_seen_it_as_it_is() {
    let mut service = Service::start().await;
    let created = service.create("ops", URL).await;
    let change = |version, url: &str| UpdateReceiverRequest {
        id: created.id.clone(),
        version,
        webhook: Some(Webhook { url: url.into(), secret: String::new() }),
        ..Default::default()
    };
    let moved = service.update(change(1, "https://elsewhere.example.org/")).await.unwrap();
    assert_eq!((moved.version, moved.webhook.unwrap().url.as_str()), (2, "https://elsewhere.example.org/"));
    let stale = service.update(change(1, URL)).await.unwrap_err();
    assert_eq!((stale.kind(), stale.code()), (Kind::Stale, "receiver_changed"));
    assert_eq!(service.update(change(0, URL)).await.unwrap().version, 3);
    let renamed = UpdateReceiverRequest { name: "other".into(), ..change(0, URL) };
    assert!(service.update(renamed).await.unwrap_err().detail().starts_with("name: "));
    let unknown = UpdateReceiverRequest { id: "nobody".into(), ..change(0, URL) };
    assert_eq!(service.update(unknown).await.unwrap_err().kind(), Kind::NotFound);
    assert!(service.update(change(0, "http://10.0.0.1/")).await.unwrap_err().detail().starts_with("webhook.url: "));
    service.process.stop().await;
}

#[tokio::test]
async fn a_secret_is_rotated_with_an_overlap_in_which_both_sign() {
    let mut receiver = Receiver::start([]).await;
    let mut service = Service::start().await;
    let old = service.create("ops", &receiver.url()).await.webhook.unwrap().secret;
    let rotated = service.rotate(RotateSecretRequest { id: "ops".into(), ..Default::default() }).await.unwrap();
    let new = rotated.webhook.clone().unwrap().secret;
    assert!(new.starts_with("whsec_") && new != old && rotated.old_secret_until_unix_nano > now());
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    service.publish(&told).await;
    let request = receiver.request().await;
    request.verify(&old);
    request.verify(&new);
    let at_once = RotateSecretRequest { id: "ops".into(), overlap_millis: 1, version: 2, ..Default::default() };
    let newest = service.rotate(at_once).await.unwrap().webhook.unwrap().secret;
    let told = notification(&service.tenant, "b", "firing", &["ops"]);
    service.publish(&told).await;
    let request = receiver.request().await;
    request.verify(&newest);
    assert!(!request.header("webhook-signature").contains(' '));
    let bad = RotateSecretRequest { id: "ops".into(), secret: "geheim".into(), ..Default::default() };
    assert!(service.rotate(bad).await.unwrap_err().detail().starts_with("secret: "));
    service.process.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_receiver_that_is_deleted_waits_for_the_next_of_its_name() {
    let mut gone = Receiver::start(vec![Answer::Status(503); 100]).await;
    let mut next = Receiver::start([]).await;
    let mut service = Service::start().await;
    let created = service.create("ops", &gone.url()).await;
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    service.publish(&told).await;
    gone.request().await;
    assert_eq!(service.delete("ops", 7).await.unwrap_err().kind(), Kind::Stale);
    service.delete(&created.id, 1).await.unwrap();
    assert_eq!(service.receiver("ops").await.unwrap_err().kind(), Kind::NotFound);
    service.create("ops", &next.url()).await;
    assert_eq!(next.request().await.header("webhook-id"), dispatcher::delivery::id(&told.id, "ops"));
    assert_eq!(service.over("ops").await.state, "delivered");
    service.process.stop().await;
}

#[tokio::test]
async fn who_writes_rules_learns_which_receivers_there_are_not() {
    let mut service = Service::start().await;
    service.create("ops", URL).await;
    let token = testkit::tokens().user(&service.tenant, &[Permission::RulesWrite]);
    assert_eq!(service.missing_as(&["ops", "pager", "chat", "chat"], &token).await.unwrap(), ["chat", "pager"]);
    let nobody = testkit::tokens().user(&service.tenant, &[Permission::AlertsRead]);
    assert_eq!(service.missing_as(&["ops"], &nobody).await.unwrap_err().kind(), Kind::Forbidden);
    service.process.stop().await;
}

#[tokio::test]
async fn with_a_key_secrets_lie_encrypted_in_the_database() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "0123456789abcdef0123456789abcdef").unwrap();
    let sealed = Settings { encryption_key_file: Some(key.path().to_owned()), ..settings() };
    let mut receiver = Receiver::start([]).await;
    let mut service = Service::start_with(&sealed).await;
    let secret = service.create("ops", &receiver.url()).await.webhook.unwrap().secret;
    let kept: (Vec<u8>, bool) =
        sqlx::query_as("select secret, secret_sealed from receivers").fetch_one(&service.pool).await.unwrap();
    assert!(kept.1 && !kept.0.windows(6).any(|bytes| bytes == b"whsec_"));
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    service.publish(&told).await;
    receiver.request().await.verify(&secret);
    service.process.stop().await;
}

#[tokio::test]
async fn what_comes_while_its_receiver_is_deleted_goes_to_the_next_of_its_name() {
    let mut receiver = Receiver::start([]).await;
    let mut service = Service::start().await;
    let created = service.create("ops", &receiver.url()).await;
    // Whoever comes to this row stands still in the middle of a transaction.
    let mut held = service.pool.begin().await.unwrap();
    sqlx::query("select from receiver_state for update").execute(&mut *held).await.unwrap();
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    let pool = service.pool.clone();
    let mut adding = JoinSet::new();
    adding.spawn(async move {
        let incoming = dispatcher::store::adding::Incoming { notification: told, traceparent: None };
        let patience = Patience { wait: std::time::Duration::ZERO, retention: RETENTION };
        adding::add(&pool, &[incoming], patience).await.unwrap()
    });
    waiting(&service.pool, 1).await;
    let pool = service.pool.clone();
    let deleting = async { service.delete(&created.id, created.version).await };
    let letting_go = async {
        waiting(&pool, 2).await;
        held.commit().await.unwrap();
    };
    let (deleted, ()) = tokio::join!(deleting, letting_go);
    deleted.unwrap();
    assert_eq!(adding.join_all().await, [1]);
    service.create("ops", &receiver.url()).await;
    receiver.request().await;
    assert_eq!(service.event().await.state, "delivered");
    service.process.stop().await;
}

#[tokio::test]
async fn a_receiver_is_deleted_while_a_failed_attempt_is_being_written_down() {
    let mut receiver = Receiver::start(vec![Answer::Status(503)]).await;
    let mut service = Service::start().await;
    let created = service.create("ops", &receiver.url()).await;
    // Who writes down a failure stands still in the middle of it.
    let trigger = "create function linger() returns trigger language plpgsql as
                   'begin if new.failures > old.failures then perform pg_advisory_xact_lock(7); end if; return new; end';
                   create trigger linger before update on receiver_state for each row execute function linger()";
    sqlx::raw_sql(trigger).execute(&service.pool).await.unwrap();
    let mut held = service.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(7)").execute(&mut *held).await.unwrap();
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    service.publish(&told).await;
    receiver.request().await;
    waiting(&service.pool, 1).await;
    let pool = service.pool.clone();
    let letting_go = async {
        waiting(&pool, 2).await;
        held.commit().await.unwrap();
    };
    let (deleted, ()) = tokio::join!(service.delete(&created.id, created.version), letting_go);
    deleted.unwrap();
    service.create("ops", &receiver.url()).await;
    receiver.request().await;
    assert_eq!(service.event().await.state, "delivered");
    service.process.stop().await;
}

/// Waits until so many transactions wait for others.
async fn waiting(pool: &sqlx::PgPool, count: i64) {
    eventually("transactions that wait", PATIENCE, async || {
        let waiting = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(pool).await.unwrap();
        if waiting >= count { Ok(()) } else { Err(waiting) }
    })
    .await;
}
