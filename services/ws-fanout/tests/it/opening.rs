//! Who may open a stream, and what is refused before the upgrade.

use std::time::Duration;

use authn::Permission;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::client::Response;

use crate::support::Running;

impl Running {
    async fn asks(&self, token: Option<&str>, path: &str) -> Response {
        let mut request = self.request(path);
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        match self.open(request).await {
            Ok((_, response)) => response,
            Err(Error::Http(response)) => response.map(|body| body),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// The status of a refusal, once what it says was found to hold `word`.
    async fn refuses(&self, token: Option<&str>, path: &str, word: &str) -> u16 {
        let response = self.asks(token, path).await;
        let body = String::from_utf8(response.body().clone().unwrap_or_default()).unwrap();
        assert!(body.contains(word), "{path}: {} {body}", response.status());
        response.status().as_u16()
    }
}

#[tokio::test]
async fn without_a_good_token_nothing_opens() {
    let running = Running::start().await;
    assert_eq!(running.refuses(None, "/ws/logs", "").await, 401);
    assert_eq!(running.refuses(Some("nonsense"), "/ws/logs", "").await, 401);
    let foreign = testkit::admin_token("default");
    assert_eq!(running.refuses(Some(&foreign), "/api/v1/ws/logs", "").await, 401);
    running.stop().await;
}

#[tokio::test]
async fn each_stream_asks_for_its_own_permission() {
    let running = Running::start().await;
    let streams = [
        ("/ws/metrics", Permission::MetricsRead),
        ("/ws/logs", Permission::LogsRead),
        ("/ws/alerts", Permission::AlertsRead),
    ];
    for (held, permission) in streams {
        let token = running.token("default", &[permission], Duration::from_secs(60));
        for (path, needed) in streams {
            let status = running.asks(Some(&token), path).await.status().as_u16();
            assert_eq!(status, if path == held { 101 } else { 403 }, "{permission} on {path}, which needs {needed}");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_explained_before_the_upgrade() {
    let running = Running::start().await;
    let token = running.good_token("default");
    for (path, word) in [
        ("/ws/logs?match=%7Bhost_name%3D", "match"),
        ("/ws/logs?match=%7Ba%3D~%22(%22%7D", "match"),
        ("/ws/logs?name=queue.depth", "name"),
        ("/ws/alerts?mach=x", "mach"),
        (&format!("/ws/logs?match={}", "a%3D%22x%22%2C".repeat(31)), "at most 30"),
        (&format!("/ws/metrics?{}", "name=x&".repeat(101)), "100 names"),
    ] {
        assert_eq!(running.refuses(Some(&token), path, word).await, 400, "{path}");
    }
    running.stop().await;
}

#[tokio::test]
async fn the_token_may_be_a_subprotocol_and_is_not_echoed_beside_ours() {
    let running = Running::start().await;
    let token = format!("bearer.{}", running.good_token("default"));
    for (offered, answered) in [
        (token.clone(), token.as_str()),
        (format!("sightline.v1, {token}"), "sightline.v1"),
        (format!("{token}, sightline.v1"), "sightline.v1"),
    ] {
        let mut request = running.request("/ws/logs");
        request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
        let (mut client, response) = running.open(request).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], answered);
        assert_eq!(client.frame().await["type"], "hello");
    }
    running.stop().await;
}

#[tokio::test]
async fn of_many_who_come_at_once_no_more_are_let_in_than_there_are_places() {
    let running = Running::with(|config| config.live.clients = 3).await;
    let token = running.good_token("default");
    let opened = futures::future::join_all((0..20).map(|_| {
        let mut request = running.request("/ws/logs");
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        running.open(request)
    }));
    let clients: Vec<_> = opened.await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(clients.len(), 3);
    drop(clients);
    running.until_clients(0).await;
    running.listen("default", "/ws/logs").await;
    running.stop().await;
}

#[tokio::test]
async fn one_client_too_many_is_asked_to_come_back() {
    let running = Running::with(|config| config.live.clients = 1).await;
    let client = running.listen("default", "/ws/logs").await;
    let token = running.good_token("default");
    let response = running.asks(Some(&token), "/ws/alerts").await;
    assert_eq!(response.status().as_u16(), 503);
    assert_eq!(response.headers()["retry-after"], "5");
    drop(client);
    running.stop().await;
}

#[tokio::test]
async fn one_tenant_leaves_places_to_others() {
    let running = Running::with(|config| (config.live.clients, config.live.tenant_clients) = (3, 2)).await;
    let clients = [running.listen("default", "/ws/logs").await, running.listen("default", "/ws/alerts").await];
    assert_eq!(running.asks(Some(&running.good_token("default")), "/ws/logs").await.status().as_u16(), 503);
    running.listen("other", "/ws/logs").await;
    drop(clients);
    running.until_clients(0).await;
    running.listen("default", "/ws/logs").await;
    running.stop().await;
}

#[tokio::test]
async fn who_speaks_tls_is_answered_in_it_and_who_does_not_is_answered_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let authority = pki::Authority::new().unwrap();
    let issued = authority.issue("ws-fanout", &["localhost"]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, issued.certificate).unwrap();
    std::fs::write(&key, issued.key).unwrap();
    let running = Running::with(|config| {
        config.live_tls = edge::TlsMode::Optional;
        (config.tls.tls_cert_file, config.tls.tls_key_file) = (certificate, key);
    })
    .await;
    running.listen("default", "/ws/logs").await;
    let trusted = reqwest::Certificate::from_pem(authority.certificate().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([trusted]).build().unwrap();
    let address = format!("https://localhost:{}/ws/logs", running.port());
    assert_eq!(client.get(address).send().await.unwrap().status(), 401);
    running.stop().await;
}
