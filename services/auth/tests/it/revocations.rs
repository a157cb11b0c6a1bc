//! What is taken back is good nowhere, within moments, whichever replica took it back and whichever one is followed.

use std::time::Duration;

use authn::Verifier;
use fault::{Fault, Kind};
use proto::auth::{
    EndSessionsRequest, FollowRequest, IssueAgentTokenRequest, ListAgentTokensRequest, RevokeAgentTokensRequest,
};
use settings::Secret;
use testkit::{Gate, eventually};

use crate::support::{Auth, Site};

const PATIENCE: Duration = Duration::from_secs(20);
/// Far below the five seconds that are promised.
const SOON: Duration = Duration::from_secs(3);

async fn until_refused(verifier: &Verifier, token: &str) {
    until_refused_within(SOON, verifier, token).await;
}

async fn until_refused_within(patience: Duration, verifier: &Verifier, token: &str) {
    eventually("the refusal", patience, async || match verifier.user(token).await {
        Err(fault) if fault.code() == "token_revoked" => Ok(()),
        Err(fault) => Err(fault.to_string()),
        Ok(_) => Err("it is still good".to_owned()),
    })
    .await;
}

async fn issue(auth: &Auth, token: &str, agent_id: &str) -> (String, String) {
    let request = rpc::forward(IssueAgentTokenRequest { agent_id: agent_id.to_owned() }, token);
    let issued = auth.client.clone().issue_agent_token(request).await.unwrap().into_inner();
    (issued.token, issued.id)
}

#[tokio::test]
async fn a_logout_a_reuse_and_a_disabled_user_end_access_tokens_at_every_replicas_followers() {
    let site = Site::new().await;
    let (one, other) = (site.start().await, site.start().await);
    site.add_user("ann", "viewer").await;
    let password = site.password();
    let (verifier, process) = other.verifier().await;

    let stays = one.login("admin", &password).await.unwrap().access_token;
    let tokens = one.login("admin", &password).await.unwrap();
    let principal = verifier.user(&tokens.access_token).await.unwrap();
    one.logout(&tokens.refresh_token).await.unwrap();
    tokio::time::timeout(SOON, verifier.until_revoked(&principal.credential)).await.expect("open streams end");
    until_refused(&verifier, &tokens.access_token).await;

    let stolen = one.login("admin", &password).await.unwrap();
    one.refresh(&stolen.refresh_token).await.unwrap();
    one.refresh(&stolen.refresh_token).await.unwrap_err();
    until_refused(&verifier, &stolen.access_token).await;

    let ann = one.login("ann", &password).await.unwrap();
    let disable = "update users set disabled_at = now() where username = 'ann'";
    sqlx::query(disable).execute(&mut site.sql().await).await.unwrap();
    until_refused(&verifier, &ann.access_token).await;

    verifier.user(&stays).await.unwrap();
    process.stop().await;
    tokio::join!(one.stop(), other.stop());
}

#[tokio::test]
async fn an_administrator_ends_the_sessions_of_a_user_of_their_tenant() {
    let site = Site::new().await;
    let auth = site.start().await;
    site.add_user("ann", "viewer").await;
    let admin = auth.login("admin", &site.password()).await.unwrap();
    let ann = auth.login("ann", &site.password()).await.unwrap();
    let id = ann.user.unwrap().id;
    let end = async |token: &str, user_id: &str| -> Result<u32, fault::Fault> {
        let request = rpc::forward(EndSessionsRequest { user_id: user_id.to_owned() }, token);
        Ok(auth.client.clone().end_sessions(request).await?.into_inner().ended)
    };
    assert_eq!(end(&ann.access_token, &id).await.unwrap_err().kind(), Kind::Forbidden);
    assert_eq!(end(&admin.access_token, "nobody").await.unwrap_err().kind(), Kind::NotFound);
    let (verifier, process) = auth.verifier().await;
    verifier.user(&ann.access_token).await.unwrap();
    assert_eq!(end(&admin.access_token, &id).await.unwrap(), 1);
    until_refused(&verifier, &ann.access_token).await;
    assert_eq!(auth.refresh(&ann.refresh_token).await.unwrap_err().code(), "session_over");
    process.stop().await;
    auth.stop().await;
}

#[tokio::test]
async fn an_agents_tokens_are_listed_and_taken_back() {
    let site = Site::new().await;
    let (one, other) = (site.start().await, site.start().await);
    let admin = one.login("admin", &site.password()).await.unwrap().access_token;
    let (first, first_id) = issue(&one, &admin, "web-1").await;
    let (second, second_id) = issue(&one, &admin, "web-1").await;
    let (neighbour, _) = issue(&one, &admin, "web-2").await;
    let (verifier, process) = other.verifier().await;
    let agent = verifier.agent(&first).await.unwrap();

    let revoke = async |agent_id: &str, id: &str| -> Result<u32, fault::Fault> {
        let message = RevokeAgentTokensRequest { agent_id: agent_id.to_owned(), id: id.to_owned() };
        Ok(one.client.clone().revoke_agent_tokens(rpc::forward(message, &admin)).await?.into_inner().revoked)
    };
    assert_eq!(revoke("web-2", &first_id).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(revoke("web-1", &first_id).await.unwrap(), 1);
    tokio::time::timeout(SOON, verifier.until_revoked(&agent.credential)).await.expect("open streams end");
    assert_eq!(verifier.agent(&first).await.unwrap_err().code(), "token_revoked");
    verifier.agent(&second).await.unwrap();
    assert_eq!(revoke("web-1", "").await.unwrap(), 1);
    eventually("the refusal of the second", SOON, async || match verifier.agent(&second).await {
        Err(fault) if fault.code() == "token_revoked" => Ok(()),
        outcome => Err(format!("{outcome:?}")),
    })
    .await;
    verifier.agent(&neighbour).await.unwrap();

    let list = async |limit: u32, cursor: &str| {
        let message = ListAgentTokensRequest { agent_id: "web-1".to_owned(), limit, cursor: cursor.to_owned() };
        one.client.clone().list_agent_tokens(rpc::forward(message, &admin)).await.unwrap().into_inner()
    };
    let page = list(1, "").await;
    assert_eq!(page.items[0].id, second_id);
    let rest = list(1, &page.next).await;
    assert_eq!((rest.items[0].id.as_str(), rest.next.as_str()), (first_id.as_str(), ""));
    assert!(rest.items[0].revoked_unix_nano > 0);
    process.stop().await;
    tokio::join!(one.stop(), other.stop());
}

#[tokio::test]
async fn a_replica_whose_connections_fell_silent_for_good_hears_of_what_is_taken_back_on_new_ones() {
    let mut site = Site::new().await;
    let one = site.start().await;
    let gate = Gate::before(site.database.database_url.reveal()).await;
    site.database.database_url = Secret::from(gate.url().to_owned());
    site.database.database_transaction_timeout = Duration::from_millis(500);
    let other = site.start().await;
    let (verifier, process) = other.verifier().await;
    let tokens = one.login("admin", &site.password()).await.unwrap();
    verifier.user(&tokens.access_token).await.unwrap();
    gate.abandon();
    // Until it has lost a question to them.
    tokio::time::sleep(Duration::from_secs(1)).await;
    one.logout(&tokens.refresh_token).await.unwrap();
    until_refused_within(Duration::from_secs(30), &verifier, &tokens.access_token).await;
    process.stop().await;
    tokio::join!(one.stop(), other.stop());
}

#[tokio::test]
async fn while_auth_is_away_what_is_known_holds() {
    let site = Site::new().await;
    let auth = site.start().await;
    let stays = auth.login("admin", &site.password()).await.unwrap().access_token;
    let gone = auth.login("admin", &site.password()).await.unwrap();
    let (verifier, process) = auth.verifier().await;
    auth.logout(&gone.refresh_token).await.unwrap();
    until_refused(&verifier, &gone.access_token).await;
    auth.stop().await;
    verifier.user(&stays).await.unwrap();
    until_refused(&verifier, &gone.access_token).await;
    assert!(process.missing().is_empty());
    process.stop().await;
}

#[tokio::test]
async fn a_replica_that_cannot_read_what_holds_says_so_instead_of_telling_what_held() {
    let site = Site::new().await;
    let auth = site.start().await;
    let follows = async || {
        let now = FollowRequest { after: 0, keys_version: String::new(), wait_millis: 0 };
        Ok::<_, Fault>(auth.client.clone().follow(now).await?.into_inner())
    };
    assert!(follows().await.unwrap().jwks_json.contains("keys"));
    sqlx::query("alter table revocations rename to elsewhere").execute(&mut site.sql().await).await.unwrap();
    eventually("being told", PATIENCE, async || match follows().await {
        Err(fault) if fault.is_retryable() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    sqlx::query("alter table elsewhere rename to revocations").execute(&mut site.sql().await).await.unwrap();
    eventually("knowing again", PATIENCE, follows).await;
    auth.stop().await;
}
