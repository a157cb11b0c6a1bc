//! A gateway of one's own.

use std::net::SocketAddr;
use std::time::Duration;

use api_gateway::config::Config;
use authn::Permission;
use clap::Parser as _;
use lifecycle::Process;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use testkit::eventually;

pub struct Gateway {
    pub address: SocketAddr,
    pub process: Process,
    http: reqwest::Client,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With settings of one's own; services are where nobody listens unless they say otherwise.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let broker = testkit::namespace();
        let mut arguments = vec!["api-gateway".to_owned()];
        let nowhere = "https://localhost:1";
        for (name, value) in [
            ("--http-listen", "127.0.0.1:0"),
            ("--metrics-url", &testkit::metrics_url()),
            ("--nats-url", broker.nats_url.reveal()),
            ("--namespace", &broker.namespace),
            ("--shards", "2"),
            ("--stream-max-bytes", "16MiB"),
            ("--auth-url", nowhere),
            ("--registry-url", nowhere),
            ("--log-writer-url", nowhere),
            ("--rule-engine-url", nowhere),
            ("--alert-service-url", nowhere),
            ("--dispatcher-url", nowhere),
            ("--ws-fanout-url", "http://localhost:1"),
            ("--tls-ca-file", "/nowhere"),
            ("--tls-cert-file", "/nowhere"),
            ("--tls-key-file", "/nowhere"),
        ] {
            let own = settings.iter().find(|(own, _)| *own == name).map_or(value, |(_, own)| own);
            arguments.extend([name.to_owned(), own.to_owned()]);
        }
        let more = settings.iter().filter(|(name, _)| !arguments.contains(&(*name).to_owned()));
        let more: Vec<String> = more.flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect();
        arguments.extend(more);
        let process = Process::for_test();
        let identity = testkit::identity("api-gateway");
        let verifier = testkit::tokens().verifier();
        let config = Config::try_parse_from(arguments).unwrap();
        let address = api_gateway::app::serve(config, &identity, verifier, &process).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { address, process, http }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    pub async fn get(&self, token: &str, path: &str) -> Response {
        self.request(Method::GET, path).bearer_auth(token).send().await.unwrap()
    }

    pub async fn post(&self, token: &str, path: &str, kind: &str, body: &str) -> Response {
        let request = self.request(Method::POST, path).bearer_auth(token).header("content-type", kind);
        request.body(body.to_owned()).send().await.unwrap()
    }
}

pub fn reader(tenant: &str) -> String {
    testkit::tokens().user(tenant, &[Permission::MetricsRead])
}

pub async fn json(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}")))
}

/// Puts one sample of now into the metrics store, as the metric-writer would.
pub async fn store(tenant: &str, name: &str, labels: &str, value: u32) {
    let line = format!("{name}{{tenant=\"{tenant}\"{labels}}} {value}\n");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/v1/import/prometheus", testkit::metrics_url());
    http.post(url).body(line).send().await.unwrap().error_for_status().unwrap();
}

/// Waits until `query` finds something for `tenant`.
pub async fn until_found(gateway: &Gateway, tenant: &str, query: &str) -> Value {
    let token = reader(tenant);
    eventually(&format!("an answer to {query}"), Duration::from_secs(20), async || {
        let request = gateway.request(Method::GET, "/prometheus/api/v1/query").query(&[("query", query)]);
        let (status, body) = json(request.bearer_auth(&token).send().await.unwrap()).await;
        let result = &body["data"]["result"];
        if result.as_array().is_some_and(|found| !found.is_empty()) {
            Ok(result.clone())
        } else {
            Err(format!("{status} {body}"))
        }
    })
    .await
}
