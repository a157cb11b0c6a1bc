//! Who may send, and as whom.

use bus::Stream;
use tonic::{Code, Request};

use crate::support::{Gateway, attributes, gauge, metrics_in, value_of};

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn the_token_decides_who_an_agent_is_whatever_its_data_claims() {
    let gateway = Gateway::start_with(&testkit::namespace(), &[]).await;
    let mut tap = gateway.tap(Stream::Metrics).await;
    let tenant = testkit::tenant();
    let token = testkit::tokens().agent(&tenant, "agent-7");
    let claim = [("resource.kind", "agent"), ("agent.id", "somebody-else")];
    gateway.metrics().await.export(with_token(gauge(&claim, 1), &token)).await.unwrap();
    let envelope = tap.next().await;
    assert_eq!(envelope.tenant, tenant);
    let stamped = attributes(metrics_in(&envelope)[0].resource.as_ref());
    assert_eq!(value_of(&stamped, "sightline.agent.id"), "agent-7");
    let own = model::identify(&tenant, [("agent.id", "agent-7")]).id;
    assert_eq!(value_of(&stamped, "sightline.resource.id"), own.to_string());
}

#[tokio::test]
async fn without_a_credential_only_listed_networks_are_taken() {
    let gateway = Gateway::start_with(&testkit::namespace(), &["--anonymous-networks", "10.0.0.0/8"]).await;
    let status = gateway.metrics().await.export(gauge(&[("host.id", "h")], 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("token"), "{}", status.message());
}

#[tokio::test]
async fn a_users_token_needs_the_permission_to_send() {
    let gateway = Gateway::start_with(&testkit::namespace(), &[]).await;
    let tenant = testkit::tenant();
    let mut client = gateway.metrics().await;
    let reader = testkit::tokens().user(&tenant, &[authn::Permission::MetricsRead]);
    let status = client.export(with_token(gauge(&[("host.id", "h")], 1), &reader)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let writer = testkit::tokens().user(&tenant, &[authn::Permission::TelemetryWrite]);
    client.export(with_token(gauge(&[("host.id", "h")], 1), &writer)).await.unwrap();
}

#[tokio::test]
async fn a_forged_token_is_refused_even_where_strangers_are_taken() {
    let gateway = Gateway::start().await;
    let forged = with_token(gauge(&[("host.id", "h")], 1), "not.a.token");
    assert_eq!(gateway.metrics().await.export(forged).await.unwrap_err().code(), Code::Unauthenticated);
    let answer = reqwest::Client::new()
        .post(gateway.url("/v1/metrics"))
        .header("content-type", "application/json")
        .bearer_auth("not.a.token")
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], "Bearer");
}
