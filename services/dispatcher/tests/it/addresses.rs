//! Where webhooks may not go.

use fault::Kind;

use crate::receiver::{Answer, Receiver};
use crate::support::{Service, notification, request, settings};

#[tokio::test]
async fn without_leave_this_machine_is_neither_accepted_nor_reached_by_name() {
    let mut receiver = Receiver::start([]).await;
    let mut closed = settings();
    closed.webhook_allowed_networks.0.clear();
    closed.webhook_refused_for = std::time::Duration::from_millis(1);
    let mut service = Service::start_with(&closed).await;
    let port = receiver.address.port();
    for host in ["127.0.0.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"] {
        let fault = service.try_create(request("ops", &format!("http://{host}:{port}/"))).await.unwrap_err();
        assert_eq!((fault.kind(), fault.code()), (Kind::Invalid, "invalid_fields"), "{host}");
    }
    service.create("ops", &format!("http://localhost:{port}/")).await;
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    service.publish(&told).await;
    let event = service.event().await;
    assert_eq!((event.state.as_str(), event.attempts), ("failed", 1));
    assert!(event.error.contains("a loopback one"), "{}", event.error);
    assert!(receiver.is_quiet());
    service.process.stop().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut inside = Receiver::start([]).await;
    let mut outside = Receiver::start([Answer::Redirect(inside.url())]).await;
    let mut service = Service::start().await;
    service.create("ops", &outside.url()).await;
    let told = notification(&service.tenant, "a", "firing", &["ops"]);
    service.publish(&told).await;
    outside.request().await;
    outside.request().await;
    let over = service.over("ops").await;
    assert_eq!(over.attempts[0].error, "the receiver redirects, which is not followed");
    assert!(inside.is_quiet());
    service.process.stop().await;
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_in_plain_words() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut hanging = Receiver::start(vec![Answer::Hang; 10]).await;
    let mut impatient = settings();
    impatient.webhook_timeout = std::time::Duration::from_millis(300);
    impatient.webhook_retry_for = std::time::Duration::from_millis(1);
    let mut service = Service::start_with(&impatient).await;
    service.create("closed", &format!("http://{free}/")).await;
    service.create("nowhere", "http://nowhere.invalid/").await;
    service.create("hanging", &hanging.url()).await;
    service.create("plain", &format!("https://{}/", hanging.address)).await;
    let told = notification(&service.tenant, "a", "firing", &["closed", "nowhere", "hanging", "plain"]);
    service.publish(&told).await;
    hanging.request().await;
    let expected = [
        ("closed", "the connection was refused"),
        ("nowhere", "the receiver's name does not resolve"),
        ("hanging", "no answer within 300 ms"),
        ("plain", "TLS: "),
    ];
    for (name, error) in expected {
        let over = service.over(name).await;
        assert!(over.attempts[0].error.starts_with(error), "{name}: {:?}", over.attempts);
    }
    service.process.stop().await;
}
