//! What the gateway asks of the metrics store, and how much it takes of it.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use lifecycle::Process;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Gateway, json, reader, store, until_found};

/// A proxy before the real store that drops what it does not know: the tenant's filter.
async fn forgetful_proxy(process: &Process) -> String {
    async fn pass(State(http): State<reqwest::Client>, request: Request) -> Response {
        let url = format!("{}{}", testkit::metrics_url(), request.uri());
        let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
        let form = url::form_urlencoded::parse(&body).into_owned();
        let form: Vec<(String, String)> = form.filter(|(name, _)| !name.starts_with("extra_")).collect();
        let answer = http.post(url).form(&form).send().await.unwrap();
        let answer = Response::builder().status(answer.status()).body(Body::from(answer.bytes().await.unwrap()));
        answer.unwrap()
    }
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let router = axum::Router::new().route("/{*path}", any(pass)).with_state(http);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stopping = process.stopping();
    process.spawn("proxy", async move {
        axum::serve(listener, router).with_graceful_shutdown(stopping.cancelled_owned()).await?;
        Ok(())
    });
    url
}

#[tokio::test]
async fn a_store_that_ignores_the_tenants_filter_is_never_asked_for_anything() {
    let (own, other) = (testkit::tenant(), testkit::tenant());
    let honest = Gateway::start().await;
    store(&other, "kept_apart", "", 1).await;
    until_found(&honest, &other, "kept_apart").await;
    let proxy = Process::for_test();
    let gateway = Gateway::start_with(&[("--metrics-url", &forgetful_proxy(&proxy).await)]).await;
    let token = reader(&own);
    for path in ["/prometheus/api/v1/query?query=kept_apart", "/api/v1/metrics/query?query=kept_apart"] {
        let (status, body) = json(gateway.get(&token, path).await).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        assert!(body.to_string().contains("extra_filters"), "the operator is told what to do: {body}");
    }
    testkit::eventually("the reason in /readyz", std::time::Duration::from_secs(10), async || {
        let reason = gateway.process.missing().get("metrics_store_filter").cloned().unwrap_or_default();
        if reason.contains("extra_filters") { Ok(()) } else { Err(reason) }
    })
    .await;
    assert!(honest.process.missing().is_empty(), "{:?}", honest.process.missing());
    gateway.process.stop().await;
    honest.process.stop().await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused_or_breaks_off_and_never_passes_for_whole() {
    let tenant = testkit::tenant();
    let gateway = Gateway::start_with(&[("--query-answer-max-bytes", "2KiB")]).await;
    for number in 0..100 {
        store(&tenant, "wide", &format!(",number=\"{number}\""), 1).await;
    }
    let token = reader(&tenant);
    testkit::eventually("all series", std::time::Duration::from_secs(20), async || {
        let (_, body) = json(gateway.get(&token, "/prometheus/api/v1/query?query=count(wide)").await).await;
        if body["data"]["result"][0]["value"][1] == "100" { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
    let request = gateway.request(Method::GET, "/prometheus/api/v1/query?query=wide").bearer_auth(&token);
    match request.send().await {
        Ok(answer) if answer.status() == StatusCode::OK => assert!(answer.text().await.is_err(), "it breaks off"),
        Ok(answer) => assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY),
        Err(error) => assert!(error.is_request(), "it breaks off at once: {error}"),
    }
    let (status, body) = json(gateway.get(&token, "/api/v1/metrics/query?query=wide").await).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::BAD_REQUEST, Some("invalid_query")), "{body}");
    gateway.process.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_keeps_no_place_beyond_the_time_of_a_query() {
    let gateway = Gateway::start_with(&[("--queries-per-tenant", "1"), ("--query-timeout", "3s")]).await;
    let token = reader(&testkit::tenant());
    // Tens of megabytes: more than all buffers on the way hold.
    let series: Vec<String> = (0..170).map(|number| format!("label_set(1,\"n\",\"{number}\")")).collect();
    let query = [("query", format!("union({})", series.join(","))), ("start", "0".into()), ("end", "10999".into())];
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let request = format!(
        "GET /prometheus/api/v1/query_range?{query}&step=1 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let mut idle = TcpStream::connect(gateway.address).await.unwrap();
    idle.write_all(request.as_bytes()).await.unwrap();
    let mut begun = [0; 15];
    idle.read_exact(&mut begun).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&begun), "HTTP/1.1 200 OK");
    // It waits for the place.
    let (status, body) = json(gateway.get(&token, "/prometheus/api/v1/query?query=1").await).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    drop(idle);
    gateway.process.stop().await;
}

#[tokio::test]
async fn a_query_that_is_longer_than_the_store_reads_is_refused_before_it_is_rewritten() {
    let gateway = Gateway::start().await;
    let token = reader(&testkit::tenant());
    let form = |name: &str, values: &[String]| {
        let pairs = values.iter().map(|value| (name, value));
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    };
    // In the field's names, each of which becomes longer for the store.
    let term = "{\"a.b\"}+";
    let query = term.repeat((16 << 10) / term.len()) + &"1".repeat(16);
    let selectors: Vec<String> = (0..2_000).map(|number| format!("{{\"a.{number}\"}}")).collect();
    for (path, form) in [("query", form("query", &[query])), ("series", form("match[]", &selectors))] {
        let path = format!("/prometheus/api/v1/{path}");
        let answer = gateway.post(&token, &path, "application/x-www-form-urlencoded", &form).await;
        let (status, body) = json(answer).await;
        assert_eq!((status, &body["errorType"]), (StatusCode::BAD_REQUEST, &"bad_data".into()), "{body}");
        assert!(body["error"].as_str().unwrap().contains("16384"), "{body}");
    }
    gateway.process.stop().await;
}
