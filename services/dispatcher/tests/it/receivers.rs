//! Receivers: creating and listing.

use authn::Permission;
use fault::Kind;
use proto::dispatch::{CreateReceiverRequest, ListReceiversRequest, Webhook};

use crate::support::{Service, request};

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
