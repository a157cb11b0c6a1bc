//! A tenant's metrics are its own, however the question is spelled.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Gateway, json, reader, store, until_found};

const FORM: &str = "application/x-www-form-urlencoded";

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Every spelling by which somebody might ask the store for `other`'s data instead.
fn spellings(other: &str) -> Vec<String> {
    let filter = encoded(&format!("{{tenant=\"{other}\"}}"));
    let everything = encoded("{tenant=~\".*\"}");
    vec![
        format!("extra_filters[]={filter}"),
        format!("extra_filters[]={filter}&extra_filters[]={everything}"),
        format!("extra_filters%5B%5D={filter}"),
        format!("extra%5Ffilters%5b%5d={filter}"),
        format!("%65xtra_filters[]={everything}"),
        format!("extra_filters={filter}"),
        format!("extra_label=tenant%3D{other}"),
        format!("extra%5flabel=tenant={other}"),
        format!("Extra_Filters[]={filter}"),
        format!("+extra_filters[]={filter}"),
        format!("extra_filters[]&extra_filters[]={filter}"),
    ]
}

fn shows(body: &Value, secret: &str) -> bool {
    body.to_string().contains(secret)
}

#[tokio::test]
async fn no_spelling_of_the_stores_own_parameters_opens_another_tenants_data() {
    let (own, other) = (testkit::tenant(), testkit::tenant());
    let gateway = Gateway::start().await;
    store(&own, "shared_metric", ",whose=\"own\"", 1).await;
    store(&other, "shared_metric", ",whose=\"secret_of_the_other\"", 1).await;
    until_found(&gateway, &own, "shared_metric").await;
    until_found(&gateway, &other, "shared_metric").await;
    let token = reader(&own);
    for question in [
        "query?query=shared_metric".to_owned(),
        format!("query?query={}", encoded("shared_metric or {tenant=~\".*\"}")),
        format!("query?query={}", encoded(&format!("shared_metric{{tenant=\"{other}\"}}"))),
        format!(
            "query?query={}",
            encoded("count_over_time(shared_metric{tenant!=\"\"}[1h:1m]) + on() group_right() shared_metric")
        ),
        "query_range?query=shared_metric&start=0&end=10&step=1".to_owned(),
        "series?match[]=shared_metric".to_owned(),
        format!("series?match[]={}", encoded(&format!("{{tenant=\"{other}\"}}"))),
        "labels?match[]=shared_metric".to_owned(),
        "label/whose/values?match[]=shared_metric".to_owned(),
        "label/whose/values?".to_owned(),
        "label/tenant/values?".to_owned(),
        "metadata?metric=shared_metric".to_owned(),
    ] {
        let (path, query) = question.split_once('?').unwrap();
        for spelling in spellings(&other) {
            let path = format!("/prometheus/api/v1/{path}");
            let mut answers = vec![gateway.get(&token, &format!("{path}?{query}&{spelling}")).await];
            answers.push(gateway.get(&token, &format!("{path}?{spelling}&{query}")).await);
            if !path.ends_with("values") && !path.ends_with("metadata") {
                answers.push(gateway.post(&token, &path, FORM, &format!("{query}&{spelling}")).await);
                answers.push(gateway.post(&token, &format!("{path}?{spelling}"), FORM, query).await);
                answers.push(gateway.post(&token, &format!("{path}?{query}"), FORM, &spelling).await);
            }
            for answer in answers {
                let (status, body) = json(answer).await;
                assert!(
                    status.is_success() || status == StatusCode::BAD_REQUEST,
                    "{question} {spelling}: {status} {body}"
                );
                assert!(!shows(&body, "secret_of_the_other"), "{question} {spelling}: {body}");
                assert!(!shows(&body, &format!("\"{other}\"")), "{question} {spelling}: {body}");
            }
        }
    }
    gateway.process.stop().await;
}

#[tokio::test]
async fn the_filter_lets_through_what_is_ones_own() {
    let (own, other) = (testkit::tenant(), testkit::tenant());
    let gateway = Gateway::start().await;
    store(&own, "mine", ",whose=\"own\"", 7).await;
    until_found(&gateway, &own, "mine").await;
    for (tenant, expected) in [(&own, 1), (&other, 0)] {
        let token = reader(tenant);
        let (_, body) = json(gateway.get(&token, "/api/v1/metrics/query?query=mine").await).await;
        assert_eq!(body["items"].as_array().unwrap().len(), expected, "{body}");
        let (_, body) = json(gateway.get(&token, "/prometheus/api/v1/label/whose/values").await).await;
        assert_eq!(body["data"].as_array().unwrap().len(), expected, "{body}");
    }
    let unknown = gateway.request(Method::GET, "/api/v1/metrics/query?query=mine&extra_filters[]=x");
    let (status, body) = json(unknown.bearer_auth(reader(&own)).send().await.unwrap()).await;
    assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &Value::from("invalid_parameter")));
    gateway.process.stop().await;
}
