//! Who gets in.

use authn::Permission;
use fault::Kind;

use crate::support::Site;

#[tokio::test]
async fn the_first_admin_logs_in_with_the_password_in_the_file_and_may_do_everything() {
    let site = Site::new().await;
    let auth = site.start().await;
    let tokens = auth.login("admin", &site.password()).await.unwrap();
    let user = tokens.user.unwrap();
    assert_eq!(
        (user.username.as_str(), user.tenant.as_str(), user.roles),
        ("admin", "default", vec!["admin".to_owned()])
    );
    let mut all: Vec<_> = Permission::ALL.iter().map(|permission| permission.as_str()).collect();
    all.sort_unstable();
    assert_eq!(user.permissions, all);
    assert_eq!(tokens.expires_in_seconds, 600);
    assert!(auth.login("ADMIN", &site.password()).await.is_ok(), "names are read in any case");
    auth.stop().await;
}

#[tokio::test]
async fn a_wrong_password_an_unknown_user_and_a_disabled_one_get_the_same_answer() {
    let site = Site::new().await;
    let auth = site.start().await;
    site.add_user("gone", "viewer").await;
    sqlx::query("update users set disabled_at = now() where username = 'gone'")
        .execute(&mut site.sql().await)
        .await
        .unwrap();
    let password = site.password();
    for (username, password) in [("admin", "wrong"), ("nobody", &password), ("gone", &password)] {
        let fault = auth.login(username, password).await.unwrap_err();
        assert_eq!((fault.kind(), fault.code()), (Kind::Unauthenticated, "login_failed"), "{username}");
        assert_eq!(fault.detail(), "the username or the password is wrong", "{username}");
    }
    auth.stop().await;
}

#[tokio::test]
async fn who_is_disabled_while_the_password_is_checked_gets_no_session() {
    let site = Site::new().await;
    let auth = site.start().await;
    let mut sql = site.sql().await;
    // An attempt is recorded when its password was right, and before its session is opened.
    for statement in [
        "create function disable() returns trigger language plpgsql as
             $$ begin update auth.users set disabled_at = now() where id = new.user_id; return new; end $$",
        "create trigger disable after insert on login_attempts for each row execute function disable()",
    ] {
        sqlx::raw_sql(statement).execute(&mut sql).await.unwrap();
    }
    let fault = auth.login("admin", &site.password()).await.unwrap_err();
    assert_eq!((fault.kind(), fault.code()), (Kind::Unauthenticated, "login_failed"));
    let sessions: i64 = sqlx::query_scalar("select count(*) from sessions").fetch_one(&mut sql).await.unwrap();
    assert_eq!(sessions, 0);
    auth.stop().await;
}

#[tokio::test]
async fn every_attempt_is_on_record() {
    let site = Site::new().await;
    let auth = site.start().await;
    auth.login("admin", "wrong").await.unwrap_err();
    auth.login("a password in the wrong field", "wrong").await.unwrap_err();
    auth.login_from("192.0.2.7", "admin", &site.password()).await.unwrap();
    let attempts: Vec<(String, String, String, bool)> = sqlx::query_as(
        "select split_part(username, ':', 1), source, outcome, user_id is not null from login_attempts order by id",
    )
    .fetch_all(&mut site.sql().await)
    .await
    .unwrap();
    let expected = [
        ("admin", "192.0.2.1", "wrong_password", true),
        ("unknown", "192.0.2.1", "unknown_user", false),
        ("admin", "192.0.2.7", "succeeded", true),
    ];
    let typed = "select count(*) from login_attempts where username like '%password%'";
    let typed: i64 = sqlx::query_scalar(typed).fetch_one(&mut site.sql().await).await.unwrap();
    assert_eq!(typed, 0, "what may be a password is kept nowhere");
    assert_eq!(attempts, expected.map(|(user, source, how, known)| (user.into(), source.into(), how.into(), known)));
    auth.stop().await;
}

#[tokio::test]
async fn a_request_that_cannot_be_a_login_says_which_field_is_wrong() {
    let site = Site::new().await;
    let auth = site.start().await;
    let long = "x".repeat(2_000);
    for (username, password, path) in [("", "p", "username"), ("a\0b", "p", "username"), ("admin", &long, "password")] {
        let fault = auth.login(username, password).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Invalid);
        assert!(fault.detail().contains(path), "{}", fault.detail());
    }
    auth.stop().await;
}
