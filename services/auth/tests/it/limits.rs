//! Guessing is limited; nobody else is.

use fault::Kind;
use proto::auth::LoginRequest;
use settings::Secret;
use testkit::Gate;

use crate::support::{Auth, Site};

const INGRESS: &str = "192.0.2.1";

async fn guess(auth: &Auth, username: &str) -> Kind {
    auth.login_from(INGRESS, username, "a guess").await.unwrap_err().kind()
}

async fn guess_until_limited(auth: &Auth, username: &str) -> usize {
    for guesses in 0..50 {
        if guess(auth, username).await == Kind::Limited {
            return guesses;
        }
    }
    50
}

#[tokio::test]
async fn an_account_is_limited_for_the_source_that_guesses_and_for_no_other() {
    let site = Site::new().await;
    let auth = site.start().await;
    assert_eq!(guess_until_limited(&auth, "admin").await, 5);
    let fault = auth.login("admin", &site.password()).await.unwrap_err();
    assert_eq!((fault.kind(), fault.code()), (Kind::Limited, "logins_limited"), "even with the right password");
    assert!(fault.retry_delay().is_some());
    auth.login_from("192.0.2.99", "admin", &site.password()).await.unwrap();
    auth.stop().await;
}

#[tokio::test]
async fn replicas_count_together() {
    let site = Site::new().await;
    let (one, other) = (site.start().await, site.start().await);
    for auth in [&one, &other, &one, &other, &one] {
        assert_eq!(guess(auth, "admin").await, Kind::Unauthenticated);
    }
    for auth in [&one, &other] {
        assert_eq!(guess(auth, "admin").await, Kind::Limited);
    }
    tokio::join!(one.stop(), other.stop());
}

#[tokio::test]
async fn behind_one_ingress_who_was_there_before_is_not_held_by_what_strangers_do() {
    let site = Site::new().await;
    let auth = site.start().await;
    auth.login_from(INGRESS, "admin", &site.password()).await.unwrap();
    let mut refused = 0;
    for number in 0..40 {
        refused += usize::from(guess(&auth, &format!("user{number}")).await == Kind::Limited);
    }
    assert!(refused >= 5, "the source itself is limited: {refused}");
    auth.login_from(INGRESS, "admin", &site.password()).await.unwrap();
    auth.stop().await;
}

#[tokio::test]
async fn a_device_that_logged_in_before_gets_in_while_others_guess_from_the_same_source() {
    let site = Site::new().await;
    let auth = site.start().await;
    let device = auth.login_from(INGRESS, "admin", &site.password()).await.unwrap().device;
    assert!(!device.is_empty());
    guess_until_limited(&auth, "admin").await;
    let login = |password: &str, device: &str| LoginRequest {
        username: "admin".into(),
        password: password.into(),
        remote_address: INGRESS.into(),
        device: device.into(),
        ..LoginRequest::default()
    };
    let password = site.password();
    auth.login_with(login(&password, "")).await.unwrap_err();
    auth.login_with(login(&password, &format!("{device}x"))).await.unwrap_err();
    auth.login_with(login(&password, &device)).await.unwrap();
    for _ in 0..5 {
        assert_eq!(auth.login_with(login("a guess", &device)).await.unwrap_err().kind(), Kind::Unauthenticated);
    }
    let fault = auth.login_with(login("a guess", &device)).await.unwrap_err();
    assert_eq!(fault.kind(), Kind::Limited, "a stolen mark does not help to guess");
    auth.stop().await;
}

#[tokio::test]
async fn without_redis_each_replica_counts_alone_and_lets_people_in() {
    let mut site = Site::new().await;
    let gate = Gate::before(&testkit::redis_url()).await;
    site.settings.redis_url = Secret::from(gate.url().to_owned());
    let auth = site.start().await;
    gate.close();
    auth.login("admin", &site.password()).await.unwrap();
    assert_eq!(guess_until_limited(&auth, "admin").await, 5);
    gate.open();
    auth.stop().await;
}
