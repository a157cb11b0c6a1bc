//! Keys: announced, active, retiring, retired, and what that means for the tokens that they signed.

use std::time::Duration;

use fault::{Fault, Kind};
use proto::auth::{
    GetKeysRequest, IssueAgentTokenRequest, ListKeysRequest, RetireKeyRequest, RotateKeysRequest, SigningKey,
};
use testkit::eventually;

use crate::support::{Auth, Site};

async fn rotate(auth: &Auth, token: &str) -> Result<SigningKey, Fault> {
    Ok(auth.client.clone().rotate_keys(rpc::forward(RotateKeysRequest {}, token)).await?.into_inner())
}

async fn retire(auth: &Auth, token: &str, id: &str) -> Result<SigningKey, Fault> {
    let message = RetireKeyRequest { id: id.to_owned() };
    Ok(auth.client.clone().retire_key(rpc::forward(message, token)).await?.into_inner())
}

async fn states(auth: &Auth, token: &str) -> Vec<String> {
    let keys = auth.client.clone().list_keys(rpc::forward(ListKeysRequest {}, token)).await.unwrap().into_inner();
    keys.items.into_iter().map(|key| key.state).collect()
}

async fn jwks(auth: &Auth) -> String {
    auth.client.clone().get_keys(GetKeysRequest {}).await.unwrap().into_inner().jwks_json
}

fn key_of(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

#[tokio::test]
async fn a_rotation_breaks_nobody_with_two_replicas() {
    let mut site = Site::new().await;
    site.settings.key_announcement = Duration::from_secs(3_600);
    let (one, other) = (site.start().await, site.start().await);
    let password = site.password();
    let admin = one.login("admin", &password).await.unwrap().access_token;
    let issue = rpc::forward(IssueAgentTokenRequest { agent_id: "web-1".into() }, &admin);
    let agent = one.client.clone().issue_agent_token(issue).await.unwrap().into_inner().token;
    let (verifier, process) = other.verifier().await;

    let announced = rotate(&one, &admin).await.unwrap();
    assert_eq!(announced.state, "announced");
    assert_eq!(rotate(&other, &admin).await.unwrap().id, announced.id, "twice is once");
    for auth in [&one, &other] {
        eventually("the announcement", Duration::from_secs(5), async || {
            let jwks = jwks(auth).await;
            if jwks.contains(&announced.id) { Ok(()) } else { Err(jwks) }
        })
        .await;
    }
    let before = one.login("admin", &password).await.unwrap().access_token;
    assert_ne!(key_of(&before), announced.id, "it is known everywhere before it signs");

    let come = "update signing_keys set active_at = now() where active_at > now()";
    sqlx::query(come).execute(&mut site.sql().await).await.unwrap();
    let after = eventually("the new key's signature", Duration::from_secs(5), async || {
        let token = other.login("admin", &password).await.unwrap().access_token;
        if key_of(&token) == announced.id { Ok(token) } else { Err("the old key signs") }
    })
    .await;
    for token in [&admin, &before, &after] {
        verifier.user(token).await.unwrap();
    }
    verifier.agent(&agent).await.unwrap();
    assert_eq!(states(&one, &after).await, ["active", "retiring"]);
    process.stop().await;
    tokio::join!(one.stop(), other.stop());
}

#[tokio::test]
async fn a_retired_key_takes_its_tokens_along_and_the_active_one_cannot_be_retired() {
    let site = Site::new().await;
    let auth = site.start().await;
    let password = site.password();
    let old = auth.login("admin", &password).await.unwrap().access_token;
    let (verifier, process) = auth.verifier().await;
    verifier.user(&old).await.unwrap();
    let fault = retire(&auth, &old, &key_of(&old)).await.unwrap_err();
    assert_eq!((fault.kind(), fault.code()), (Kind::Conflict, "key_active"));
    assert_eq!(retire(&auth, &old, "nothing").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(rotate(&auth, &old).await.unwrap().state, "active", "announced for no time");
    let new = auth.login("admin", &password).await.unwrap().access_token;
    assert_ne!(key_of(&new), key_of(&old));
    assert_eq!(retire(&auth, &new, &key_of(&old)).await.unwrap().state, "retired");
    eventually("the refusal", Duration::from_secs(5), async || match verifier.user(&old).await {
        Err(fault) if fault.kind() == Kind::Unauthenticated => Ok(()),
        outcome => Err(format!("{outcome:?}")),
    })
    .await;
    verifier.user(&new).await.unwrap();
    process.stop().await;
    auth.stop().await;
}

#[tokio::test]
async fn keys_are_for_administrators() {
    let site = Site::new().await;
    let auth = site.start().await;
    auth.login("admin", &site.password()).await.unwrap();
    site.add_user("ann", "operator").await;
    let ann = auth.login("ann", &site.password()).await.unwrap().access_token;
    assert_eq!(rotate(&auth, &ann).await.unwrap_err().kind(), Kind::Forbidden);
    auth.stop().await;
}

#[tokio::test]
async fn with_a_key_file_nothing_that_signs_lies_in_clear_and_older_keys_are_sealed() {
    let mut site = Site::new().await;
    site.start().await.stop().await;
    let file = site.password_file().with_file_name("key");
    std::fs::write(&file, "k".repeat(32)).unwrap();
    let password = site.password();
    let mut sql = site.sql().await;
    let clear: Vec<u8> = sqlx::query_scalar("select pkcs8 from signing_keys").fetch_one(&mut sql).await.unwrap();

    site.settings.encryption_key_file = Some(file.clone());
    let auth = site.start().await;
    let token = auth.login("admin", &password).await.unwrap().access_token;
    auth.stop().await;
    let sealed: Vec<(Vec<u8>, bool)> =
        sqlx::query_as("select pkcs8, sealed from signing_keys union all select value, sealed from secrets")
            .fetch_all(&mut sql)
            .await
            .unwrap();
    assert!(sealed.iter().all(|(_, sealed)| *sealed) && sealed.len() == 2);
    let secret = &clear[clear.len() - 32..];
    assert!(sealed.iter().all(|(bytes, _)| !bytes.windows(32).any(|window| window == secret)));

    let auth = site.start().await;
    assert_eq!(key_of(&auth.login("admin", &password).await.unwrap().access_token), key_of(&token), "the same key");
    auth.stop().await;
    site.settings.encryption_key_file = None;
    let error = format!("{:#}", site.try_start(None).await.err().unwrap());
    assert!(error.contains("SIGHTLINE_AUTH_ENCRYPTION_KEY_FILE"), "{error}");
}
