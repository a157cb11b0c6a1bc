//! The status says what it can, above all when something is away.

use std::time::Duration;

use authn::Permission;
use reqwest::StatusCode;
use serde_json::Value;
use testkit::{Gate, eventually};

use crate::support::{Gateway, json};

async fn status(gateway: &Gateway, tenant: &str) -> (StatusCode, Value) {
    let token = testkit::tokens().user(tenant, &[Permission::StatusRead]);
    json(gateway.get(&token, "/api/v1/status").await).await
}

#[tokio::test]
async fn while_the_broker_is_away_the_rest_is_told_with_the_last_account_and_its_age() {
    let gate = Gate::before(&testkit::servers().nats).await;
    let targets = "away=http://127.0.0.1:1,nameless=http://no-such-host.invalid:1";
    let gateway = Gateway::start_with(&[("--nats-url", gate.url()), ("--status-targets", targets)]).await;
    let whole = eventually("an account", Duration::from_secs(20), async || {
        let (code, body) = status(&gateway, "default").await;
        assert_eq!(code, StatusCode::OK);
        let known = body["broker"]["account"].as_array().is_some_and(|streams| !streams.is_empty());
        if known && body["services"].as_array().is_some_and(|all| all.len() == 2) {
            Ok(body)
        } else {
            Err(body.to_string())
        }
    })
    .await;
    assert_eq!(whole["missing"], serde_json::json!([]));
    assert!(whole["broker"]["age_seconds"].as_f64().is_some());
    for service in whole["services"].as_array().unwrap() {
        assert_eq!(service["ready"], false, "{service}");
        assert!(!service["missing"].as_object().unwrap().is_empty(), "{service}");
    }
    assert_eq!(whole["services"][0]["replicas"][0]["address"], "127.0.0.1:1");
    gate.close();
    eventually("the word that the account is old", Duration::from_secs(30), async || {
        let (code, body) = status(&gateway, "default").await;
        assert_eq!(code, StatusCode::OK);
        assert!(!body["broker"]["account"].as_array().unwrap().is_empty(), "the last one is still told");
        if body["missing"][0]["part"] == "broker" { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
    assert!(!gateway.process.missing().contains_key("broker"), "the API does not go with the broker");
    gate.open();
    gateway.process.stop().await;
}

#[tokio::test]
async fn without_a_broker_it_starts_all_the_same() {
    let gateway = Gateway::start_with(&[("--nats-url", "nats://127.0.0.1:1")]).await;
    let (code, body) = status(&gateway, "default").await;
    assert_eq!((code, &body["broker"]), (StatusCode::OK, &Value::Null));
    assert_eq!(body["missing"][0]["part"], "broker");
    gateway.process.stop().await;
}

#[tokio::test]
async fn another_tenant_does_not_see_the_installations_account() {
    let gateway = Gateway::start().await;
    eventually("an account", Duration::from_secs(20), async || {
        let (_, body) = status(&gateway, "default").await;
        if body["broker"].is_object() { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
    let (code, body) = status(&gateway, &testkit::tenant()).await;
    assert_eq!((code, &body["broker"]), (StatusCode::OK, &Value::Null));
    gateway.process.stop().await;
}
