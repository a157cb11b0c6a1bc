//! Credentials for agents, and who may hand them out.

use std::time::{Duration, SystemTime};

use authn::{Keys, Permission, Signer, Verifier};
use fault::{Fault, Kind};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proto::auth::{GetKeysRequest, IssueAgentTokenRequest, IssueAgentTokenResponse};
use serde_json::{Value, json};

use crate::support::{Auth, Site};

async fn issue(auth: &Auth, token: &str, agent_id: &str) -> Result<IssueAgentTokenResponse, Fault> {
    let request = rpc::forward(IssueAgentTokenRequest { agent_id: agent_id.to_owned() }, token);
    Ok(auth.client.clone().issue_agent_token(request).await?.into_inner())
}

async fn jwks(auth: &Auth) -> String {
    auth.client.clone().get_keys(GetKeysRequest {}).await.unwrap().into_inner().jwks_json
}

#[tokio::test]
async fn an_agents_token_says_who_it_is_and_is_on_record() {
    let site = Site::new().await;
    let auth = site.start().await;
    let admin = auth.login("admin", &site.password()).await.unwrap();
    let issued = issue(&auth, &admin.access_token, "web-1").await.unwrap();
    let verifier = Verifier::fixed(Keys::parse(&jwks(&auth).await).unwrap());
    let agent = verifier.agent(&issued.token).await.unwrap();
    assert_eq!((agent.tenant.as_str(), agent.agent_id.as_str()), ("default", "web-1"));
    let recorded: (String, String) =
        sqlx::query_as("select agent_id, issued_by from agent_tokens").fetch_one(&mut site.sql().await).await.unwrap();
    assert_eq!(recorded, ("web-1".to_owned(), admin.user.unwrap().id));
    assert_eq!(issue(&auth, &issued.token, "web-2").await.unwrap_err().code(), "token_wrong_kind");
    auth.stop().await;
}

#[tokio::test]
async fn handing_out_agents_tokens_needs_the_permission() {
    let site = Site::new().await;
    let auth = site.start().await;
    site.add_user("ann", "viewer").await;
    let viewer = auth.login("ann", &site.password()).await.unwrap();
    let fault = issue(&auth, &viewer.access_token, "web-1").await.unwrap_err();
    assert_eq!(fault.kind(), Kind::Forbidden);
    assert!(fault.detail().contains("agents:write"));
    auth.stop().await;
}

#[tokio::test]
async fn an_agent_id_that_would_not_be_a_label_is_refused() {
    let site = Site::new().await;
    let auth = site.start().await;
    let admin = auth.login("admin", &site.password()).await.unwrap().access_token;
    for id in ["", "a b", "a\nb", "ä", &"x".repeat(129)] {
        assert_eq!(issue(&auth, &admin, id).await.unwrap_err().kind(), Kind::Invalid, "{id}");
    }
    auth.stop().await;
}

#[tokio::test]
async fn forged_tokens_hand_out_nothing() {
    let site = Site::new().await;
    let auth = site.start().await;
    let admin = auth.login("admin", &site.password()).await.unwrap().access_token;
    let keys: Value = serde_json::from_str(&jwks(&auth).await).unwrap();
    let (kid, public) = (keys["keys"][0]["kid"].as_str().unwrap(), keys["keys"][0]["x"].as_str().unwrap());

    let stranger = Signer::generate().unwrap();
    let minute = Duration::from_secs(60);
    let by_stranger = stranger.user("default", "u", &Permission::ALL, SystemTime::now(), minute).unwrap().token;

    let mut parts: Vec<&str> = admin.split('.').collect();
    let none = data_encoding::BASE64URL_NOPAD
        .encode(json!({"alg": "none", "typ": "at+jwt", "kid": kid}).to_string().as_bytes());
    let unsigned = format!("{none}.{}.", parts[1]);

    let claims = data_encoding::BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let header = Header { typ: Some("at+jwt".into()), kid: Some(kid.into()), ..Header::new(Algorithm::HS256) };
    let secret = data_encoding::BASE64URL_NOPAD.decode(public.as_bytes()).unwrap();
    let confused = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();

    let mut promoted = claims.clone();
    promoted["tenant"] = json!("other");
    let promoted = data_encoding::BASE64URL_NOPAD.encode(promoted.to_string().as_bytes());
    parts[1] = &promoted;
    let altered = parts.join(".");

    for (how, token) in [
        ("another key", by_stranger),
        ("no signature", unsigned),
        ("the public key as a shared secret", confused),
        ("altered claims", altered),
        ("nonsense", "nonsense".to_owned()),
    ] {
        let fault = issue(&auth, &token, "web-1").await.unwrap_err();
        assert_eq!((fault.kind(), fault.code()), (Kind::Unauthenticated, "token_invalid"), "{how}");
    }
    assert_eq!(issue(&auth, "", "web-1").await.unwrap_err().kind(), Kind::Unauthenticated);
    let request = IssueAgentTokenRequest { agent_id: "web-1".into() };
    let fault: Fault = auth.client.clone().issue_agent_token(request).await.unwrap_err().into();
    assert_eq!(fault.code(), "token_missing");
    auth.stop().await;
}
