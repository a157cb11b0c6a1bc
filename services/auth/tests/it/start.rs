//! The first start, and the ones after it.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use authn::Verifier;
use fault::Kind;
use lifecycle::Process;
use testkit::eventually;

use crate::support::Site;

#[tokio::test]
async fn the_generated_password_is_readable_by_its_owner_alone() {
    let site = Site::new().await;
    let auth = site.start().await;
    let mode = std::fs::metadata(site.password_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(site.password().len() >= 24);
    auth.stop().await;
}

#[tokio::test]
async fn a_password_that_the_file_holds_already_is_used() {
    let site = Site::new().await;
    std::fs::write(site.password_file(), "chosen by the owner\n").unwrap();
    let auth = site.start().await;
    auth.login("admin", "chosen by the owner").await.unwrap();
    auth.stop().await;
}

#[tokio::test]
async fn without_an_admin_and_a_way_to_make_one_it_says_what_to_set() {
    let site = Site::new().await;
    let error = format!("{:#}", site.try_start(None).await.err().unwrap());
    assert!(error.contains("SIGHTLINE_AUTH_INITIAL_PASSWORD_FILE"), "{error}");
    site.start().await.stop().await;
    site.try_start(None).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_key_and_the_admin() {
    let site = Site::new().await;
    let auth = site.start().await;
    let password = site.password();
    let before = auth.login("admin", &password).await.unwrap();
    auth.stop().await;
    std::fs::remove_file(site.password_file()).unwrap();
    let auth = site.start().await;
    assert!(!site.password_file().exists(), "no second admin is made");
    auth.login("admin", &password).await.unwrap();
    auth.refresh(&before.refresh_token).await.unwrap();
    let process = Process::for_test();
    let verifier = Verifier::new(auth.channel.clone(), &process);
    eventually("verification", Duration::from_secs(10), async || verifier.user(&before.access_token).await).await;
    process.stop().await;
    auth.stop().await;
}

#[tokio::test]
async fn replicas_that_start_together_agree_on_one_key_and_one_admin() {
    let site = Site::new().await;
    let (one, other) = tokio::join!(site.start(), site.start());
    let tokens = one.login("admin", &site.password()).await.unwrap();
    other.refresh(&tokens.refresh_token).await.unwrap();
    let counts: (i64, i64) = sqlx::query_as("select (select count(*) from signing_keys), (select count(*) from users)")
        .fetch_one(&mut site.sql().await)
        .await
        .unwrap();
    assert_eq!(counts, (1, 1));
    tokio::join!(one.stop(), other.stop());
}

#[tokio::test]
async fn verifiers_wait_for_auth_and_then_work_on_without_it() {
    let site = Site::new().await;
    let auth = site.start().await;
    let token = auth.login("admin", &site.password()).await.unwrap().access_token;
    let process = Process::for_test();
    let nowhere = rpc::channel(&testkit::identity("registry"), "https://localhost:1").unwrap();
    let waiting = Verifier::new(nowhere, &process);
    assert_eq!(waiting.user(&token).await.unwrap_err().kind(), Kind::Unavailable);
    eventually("the reason in /readyz", Duration::from_secs(10), async || {
        let reason = process.missing().get("keys").cloned().unwrap_or_default();
        if reason.contains("auth") { Ok(()) } else { Err(reason) }
    })
    .await;
    process.stop().await;

    let process = Process::for_test();
    let verifier = Verifier::new(auth.channel.clone(), &process);
    eventually("verification", Duration::from_secs(10), async || verifier.user(&token).await).await;
    assert!(process.missing().is_empty());
    let unseen = auth.login("admin", &site.password()).await.unwrap().access_token;
    auth.stop().await;
    verifier.user(&unseen).await.unwrap();
    let stranger = testkit::admin_token("default");
    let kind = eventually("an answer that a retry may change", Duration::from_secs(15), async || {
        match verifier.user(&stranger).await.unwrap_err().kind() {
            Kind::Unavailable => Ok(Kind::Unavailable),
            kind => Err(format!("{kind:?}")),
        }
    })
    .await;
    assert_eq!(kind, Kind::Unavailable);
    process.stop().await;
}
