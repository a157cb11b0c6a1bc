//! How long somebody stays in.

use std::time::Duration;

use fault::Kind;

use crate::support::Site;

#[tokio::test]
async fn a_refresh_token_is_good_once_and_gives_the_next_one() {
    let site = Site::new().await;
    let auth = site.start().await;
    let first = auth.login("admin", &site.password()).await.unwrap();
    let second = auth.refresh(&first.refresh_token).await.unwrap();
    assert_ne!(first.refresh_token, second.refresh_token);
    let third = auth.refresh(&second.refresh_token).await.unwrap();
    assert_eq!(third.user, first.user);
    auth.stop().await;
}

#[tokio::test]
async fn using_a_refresh_token_twice_ends_the_session_and_no_other() {
    let site = Site::new().await;
    let auth = site.start().await;
    let other = auth.login("admin", &site.password()).await.unwrap();
    let first = auth.login("admin", &site.password()).await.unwrap();
    let second = auth.refresh(&first.refresh_token).await.unwrap();
    for token in [&first.refresh_token, &second.refresh_token] {
        let fault = auth.refresh(token).await.unwrap_err();
        assert_eq!((fault.kind(), fault.code()), (Kind::Unauthenticated, "session_over"));
    }
    auth.refresh(&other.refresh_token).await.unwrap();
    auth.stop().await;
}

#[tokio::test]
async fn two_windows_that_refresh_at_once_get_the_same_successor() {
    let mut site = Site::new().await;
    site.settings.refresh_leeway = Duration::from_secs(30);
    let (auth, replica) = (site.start().await, site.start().await);
    let tokens = auth.login("admin", &site.password()).await.unwrap();
    let uses = tokio::join!(
        auth.refresh(&tokens.refresh_token),
        replica.refresh(&tokens.refresh_token),
        auth.refresh(&tokens.refresh_token),
    );
    let next: Vec<_> = [uses.0, uses.1, uses.2].map(|used| used.unwrap().refresh_token).into();
    assert!(next.iter().all(|token| *token == next[0] && *token != tokens.refresh_token), "{next:?}");
    let after = replica.refresh(&next[0]).await.unwrap();
    let long_ago = "update refresh_tokens set used_at = now() - interval '31 s' where used_at is not null";
    sqlx::query(long_ago).execute(&mut site.sql().await).await.unwrap();
    assert_eq!(auth.refresh(&tokens.refresh_token).await.unwrap_err().code(), "session_over");
    assert_eq!(auth.refresh(&after.refresh_token).await.unwrap_err().code(), "session_over", "and with it all of it");
    tokio::join!(auth.stop(), replica.stop());
}

#[tokio::test]
async fn without_leeway_one_of_many_uses_at_once_wins_at_the_most() {
    let site = Site::new().await;
    let auth = site.start().await;
    let tokens = auth.login("admin", &site.password()).await.unwrap();
    let uses = tokio::join!(auth.refresh(&tokens.refresh_token), auth.refresh(&tokens.refresh_token));
    let won: Vec<_> = [uses.0, uses.1].into_iter().flatten().collect();
    assert_eq!(won.len(), 1);
    auth.refresh(&won[0].refresh_token).await.expect_err("the session was revoked by the second use");
    auth.stop().await;
}

#[tokio::test]
async fn trying_refresh_tokens_out_is_limited_and_keeps_nobody_of_the_same_network_out() {
    let site = Site::new().await;
    let auth = site.start().await;
    let good = auth.login("admin", &site.password()).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 200 && !kinds.contains(&Kind::Limited) {
        kinds.push(auth.refresh("slr_never-was-one").await.unwrap_err().kind());
    }
    assert!(kinds.len() > 59 && kinds.contains(&Kind::Limited), "{}", kinds.len());
    auth.refresh(&good.refresh_token).await.unwrap();
    auth.stop().await;
}

#[tokio::test]
async fn logout_ends_the_session_and_can_be_repeated() {
    let site = Site::new().await;
    let auth = site.start().await;
    let tokens = auth.login("admin", &site.password()).await.unwrap();
    auth.logout(&tokens.refresh_token).await.unwrap();
    auth.logout(&tokens.refresh_token).await.unwrap();
    auth.logout("slr_never-was-one").await.unwrap();
    assert_eq!(auth.refresh(&tokens.refresh_token).await.unwrap_err().code(), "session_over");
    auth.stop().await;
}

#[tokio::test]
async fn sessions_end_by_themselves_and_with_their_user() {
    let site = Site::new().await;
    let auth = site.start().await;
    let expired = auth.login("admin", &site.password()).await.unwrap();
    let mut sql = site.sql().await;
    sqlx::query("update sessions set expires_at = now()").execute(&mut sql).await.unwrap();
    assert!(auth.refresh(&expired.refresh_token).await.is_err());
    site.add_user("ann", "viewer").await;
    let ann = auth.login("ann", &site.password()).await.unwrap();
    sqlx::query("update users set disabled_at = now() where username = 'ann'").execute(&mut sql).await.unwrap();
    assert!(auth.refresh(&ann.refresh_token).await.is_err());
    auth.stop().await;
}

#[tokio::test]
async fn a_change_of_role_shows_at_the_next_refresh() {
    let site = Site::new().await;
    let auth = site.start().await;
    site.add_user("ann", "operator").await;
    let before = auth.login("ann", &site.password()).await.unwrap();
    assert!(before.user.unwrap().permissions.contains(&"rules:write".to_owned()));
    let change = "update user_roles set role = 'viewer' where role = 'operator'";
    sqlx::query(change).execute(&mut site.sql().await).await.unwrap();
    let after = auth.refresh(&before.refresh_token).await.unwrap();
    assert!(!after.user.unwrap().permissions.contains(&"rules:write".to_owned()));
    auth.stop().await;
}

#[tokio::test]
async fn no_token_lies_in_the_database() {
    let site = Site::new().await;
    let auth = site.start().await;
    let tokens = auth.login("admin", &site.password()).await.unwrap();
    let rows: Vec<String> = sqlx::query_scalar("select t::text || s::text from refresh_tokens t, sessions s")
        .fetch_all(&mut site.sql().await)
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert!(!rows[0].contains(&tokens.refresh_token) && !rows[0].contains(&tokens.access_token));
    auth.stop().await;
}
