//! What gets in, and what does not.

use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use fault::Kind;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::{Signer, Subject};

const MINUTE: Duration = Duration::from_secs(60);

fn signer_and_verifier() -> (Signer, Verifier) {
    let signer = Signer::generate().unwrap();
    let verifier = Verifier::fixed(Keys::parse(&signer.jwks()).unwrap());
    (signer, verifier)
}

fn user_at(signer: &Signer, now: SystemTime) -> String {
    signer.user("acme", "u-1", &[Permission::LogsRead], now, MINUTE).unwrap().token
}

fn user(signer: &Signer) -> String {
    user_at(signer, SystemTime::now())
}

async fn refusal(verifier: &Verifier, token: &str) -> (Kind, String) {
    let fault = verifier.user(token).await.unwrap_err();
    (fault.kind(), fault.code().to_owned())
}

fn unauthenticated(code: &str) -> (Kind, String) {
    (Kind::Unauthenticated, code.to_owned())
}

/// A token with our claims, changed by `change`, under a header and a key of one's own choice.
fn forged(header: &Header, key: &EncodingKey, change: impl FnOnce(&mut Value)) -> String {
    let now = token::unix_seconds(SystemTime::now());
    let mut claims = json!({
        "iss": "sightline", "aud": "sightline-api", "sub": "u-1", "tenant": "acme",
        "permissions": ["rules:write"], "jti": "x", "iat": now, "nbf": now, "exp": now + 60,
    });
    change(&mut claims);
    jsonwebtoken::encode(header, &claims, key).unwrap()
}

fn header(alg: Algorithm, kid: &str) -> Header {
    Header { typ: Some("at+jwt".into()), kid: Some(kid.into()), ..Header::new(alg) }
}

#[tokio::test]
async fn a_user_is_known_by_their_token_and_may_do_what_it_says() {
    let (signer, verifier) = signer_and_verifier();
    let token = user(&signer);
    for _from_the_signature_then_from_the_cache in 0..2 {
        let principal = verifier.user(&token).await.unwrap();
        assert_eq!((principal.tenant.as_str(), principal.subject.as_str()), ("acme", "u-1"));
        principal.require(Permission::LogsRead).unwrap();
        assert_eq!(principal.require(Permission::RulesWrite).unwrap_err().kind(), Kind::Forbidden);
        assert!(!format!("{principal:?}").contains(&token));
    }
}

#[tokio::test]
async fn users_and_agents_cannot_use_each_others_tokens() {
    let (signer, verifier) = signer_and_verifier();
    let agent = signer.agent("acme", "a-1", SystemTime::now(), MINUTE).unwrap().token;
    assert_eq!(verifier.agent(&agent).await.unwrap().agent_id, "a-1");
    assert_eq!(refusal(&verifier, &agent).await, unauthenticated("token_invalid"), "from the cache");
    let unseen = signer.agent("acme", "a-2", SystemTime::now(), MINUTE).unwrap().token;
    assert_eq!(refusal(&verifier, &unseen).await, unauthenticated("token_wrong_kind"));
    assert_eq!(verifier.agent(&user(&signer)).await.unwrap_err().code(), "token_wrong_kind");
}

#[tokio::test]
async fn a_token_is_good_from_its_beginning_to_its_end_with_five_seconds_for_clocks() {
    let (signer, verifier) = signer_and_verifier();
    let now = SystemTime::now();
    assert_eq!(refusal(&verifier, &user_at(&signer, now - 2 * MINUTE)).await, unauthenticated("token_expired"));
    assert_eq!(refusal(&verifier, &user_at(&signer, now + MINUTE)).await, unauthenticated("token_invalid"));
    verifier.user(&user_at(&signer, now - Duration::from_secs(62))).await.unwrap();
    verifier.user(&user_at(&signer, now + Duration::from_secs(3))).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_not_ours_signs_nothing() {
    let (signer, verifier) = signer_and_verifier();
    let other = Signer::generate().unwrap();
    assert_eq!(refusal(&verifier, &user(&other)).await, unauthenticated("token_invalid"));
    let stolen_name = header(Algorithm::EdDSA, signer.key_id());
    let token = forged(&stolen_name, &EncodingKey::from_ed_der(other.pkcs8()), |_| ());
    assert_eq!(refusal(&verifier, &token).await, unauthenticated("token_invalid"));
}

#[tokio::test]
async fn no_other_algorithm_is_taken() {
    let (signer, verifier) = signer_and_verifier();
    let public = BASE64URL_NOPAD.decode(signer.jwk()["x"].as_str().unwrap().as_bytes()).unwrap();
    let confused = forged(&header(Algorithm::HS256, signer.key_id()), &EncodingKey::from_secret(&public), |_| ());
    assert_eq!(refusal(&verifier, &confused).await, unauthenticated("token_invalid"));
    let real = user(&signer);
    let claims = real.split('.').nth(1).unwrap();
    for alg in ["none", "None", "NONE", ""] {
        let head = json!({"alg": alg, "typ": "at+jwt", "kid": signer.key_id()}).to_string();
        let token = format!("{}.{claims}.", BASE64URL_NOPAD.encode(head.as_bytes()));
        assert_eq!(refusal(&verifier, &token).await, unauthenticated("token_invalid"));
    }
}

#[tokio::test]
async fn every_claim_must_be_there_and_right() {
    let (signer, verifier) = signer_and_verifier();
    let key = EncodingKey::from_ed_der(signer.pkcs8());
    let head = header(Algorithm::EdDSA, signer.key_id());
    verifier.user(&forged(&head, &key, |_| ())).await.unwrap();
    for (claim, wrong) in [
        ("iss", json!("somebody")),
        ("aud", json!("sightline-ingest")),
        ("sub", json!("")),
        ("tenant", json!("")),
        ("iat", json!(u64::MAX)),
        ("exp", json!("soon")),
    ] {
        let token = forged(&head, &key, |claims| claims[claim] = wrong);
        assert_eq!(refusal(&verifier, &token).await, unauthenticated("token_invalid"), "{claim}");
    }
    for claim in ["iss", "aud", "sub", "tenant", "jti", "iat", "nbf", "exp"] {
        let token = forged(&head, &key, |claims| drop(claims.as_object_mut().unwrap().remove(claim)));
        assert_eq!(refusal(&verifier, &token).await, unauthenticated("token_invalid"), "{claim}");
    }
    for typ in [None, Some("JWT".to_owned())] {
        let token = forged(&Header { typ, ..head.clone() }, &key, |_| ());
        assert_eq!(refusal(&verifier, &token).await, unauthenticated("token_invalid"));
    }
}

#[tokio::test]
async fn garbage_is_refused_without_a_panic() {
    let (signer, verifier) = signer_and_verifier();
    let token = user(&signer);
    for cut in 0..token.len() {
        assert!(verifier.user(&token[..cut]).await.is_err());
    }
    let long = "a".repeat(1 << 20);
    for garbage in ["", ".", "..", "...", "é.è.ê", long.as_str()] {
        assert_eq!(refusal(&verifier, garbage).await, unauthenticated("token_invalid"));
    }
}

#[tokio::test]
async fn a_withdrawn_key_takes_its_remembered_tokens_along() {
    let (signer, verifier) = signer_and_verifier();
    let token = user(&signer);
    verifier.user(&token).await.unwrap();
    verifier.source.publish(Keys::parse(&Signer::generate().unwrap().jwks()).unwrap(), []);
    assert_eq!(refusal(&verifier, &token).await, unauthenticated("token_invalid"));
}

#[tokio::test]
async fn a_request_says_who_calls_in_its_header_or_in_a_subprotocol() {
    let (signer, verifier) = signer_and_verifier();
    let token = user(&signer);
    let mut headers = HeaderMap::new();
    assert_eq!(verifier.request(&headers).await.unwrap_err().code(), "token_missing");
    headers.insert("sec-websocket-protocol", format!("sightline.v1, bearer.{token}").parse().unwrap());
    assert_eq!(verifier.request(&headers).await.unwrap().subject, "u-1");
    let metadata = MetadataMap::from_headers(headers);
    assert_eq!(verifier.caller(&metadata).await.unwrap_err().code(), "token_missing");
}

#[tokio::test]
async fn what_was_taken_back_is_refused_at_once_whether_it_was_seen_before_or_not() {
    let signer = Signer::generate().unwrap();
    let keys = Keys::parse(&signer.jwks()).unwrap();
    let (verifier, feed) = Verifier::fed(keys.clone());
    let (now, session) = (SystemTime::now(), Some(uuid::Uuid::new_v4()));
    let subject = Subject { tenant: "acme", id: "u-1", permissions: &[], session };
    let seen = signer.session(subject, now, MINUTE).unwrap().token;
    let unseen = signer.session(subject, now, MINUTE).unwrap().token;
    let other = signer.session(Subject { session: Some(uuid::Uuid::new_v4()), ..subject }, now, MINUTE).unwrap().token;
    let principal = verifier.user(&seen).await.unwrap();
    let waiting = verifier.until_revoked(&principal.credential);
    let revocation = Revocation { id: session.unwrap().to_string(), expires: now + MINUTE };
    let (ended, ()) = tokio::join!(tokio::time::timeout(MINUTE, waiting), async {
        feed.publish(keys.clone(), [revocation.clone()]);
    });
    ended.expect("an open stream learns of it");
    for token in [&seen, &unseen] {
        assert_eq!(refusal(&verifier, token).await, unauthenticated("token_revoked"));
    }
    verifier.user(&other).await.unwrap();

    let agent = signer.agent("acme", "a-1", now, MINUTE).unwrap();
    let token = agent.token.clone();
    verifier.agent(&token).await.unwrap();
    feed.publish(keys, [Revocation { id: agent.id.to_string(), expires: now + MINUTE }]);
    assert_eq!(verifier.agent(&token).await.unwrap_err().code(), "token_revoked");
    assert_eq!(refusal(&verifier, &seen).await, unauthenticated("token_revoked"), "what was taken back stays so");
}

#[tokio::test]
async fn with_two_keys_published_tokens_of_both_are_good() {
    let (old, new) = (Signer::generate().unwrap(), Signer::generate().unwrap());
    let both = json!({"keys": [old.jwk(), new.jwk()]}).to_string();
    let (verifier, feed) = Verifier::fed(Keys::parse(&old.jwks()).unwrap());
    let (before, after) = (user(&old), user(&new));
    verifier.user(&before).await.unwrap();
    assert_eq!(refusal(&verifier, &after).await, unauthenticated("token_invalid"));
    feed.publish(Keys::parse(&both).unwrap(), []);
    verifier.user(&before).await.unwrap();
    verifier.user(&after).await.unwrap();
    feed.publish(Keys::parse(&new.jwks()).unwrap(), []);
    assert_eq!(refusal(&verifier, &before).await, unauthenticated("token_invalid"));
}
