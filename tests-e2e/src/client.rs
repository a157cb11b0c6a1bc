//! A user of the API.

use std::time::Duration;

use devstack::services::Stack;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A live stream.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A logged-in user.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    address: String,
    token: String,
    traceparent: Option<String>,
}

impl Client {
    pub(crate) async fn login(stack: &Stack, password: &str) -> Self {
        lifecycle::install_crypto();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy().build().unwrap();
        let mut client =
            Self { http, address: stack.http_address("api-gateway"), token: String::new(), traceparent: None };
        let answer = client.post("/api/v1/auth/login", &json!({"username": "admin", "password": password})).await;
        client.token = answer["access_token"].as_str().unwrap_or_else(|| panic!("cannot log in: {answer}")).to_owned();
        client
    }

    /// The access token that it logged in with.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The same client with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// The same client within a trace.
    #[must_use]
    pub fn with_traceparent(&self, traceparent: &str) -> Self {
        Self { traceparent: Some(traceparent.to_owned()), ..self.clone() }
    }

    /// Asks, whatever the answer.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Response {
        self.try_ask(method, path, body).await.unwrap()
    }

    /// Asks, and bears that nobody listens.
    ///
    /// # Errors
    /// The connection.
    pub async fn try_ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, reqwest::Error> {
        let mut request = self.http.request(method, format!("http://{}{path}", self.address));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(traceparent) = &self.traceparent {
            request = request.header("traceparent", traceparent);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await
    }

    /// The JSON answer to a GET; `Err` with the body when it is no success.
    ///
    /// # Errors
    /// The status and the body.
    pub async fn get(&self, path: &str) -> Result<Value, String> {
        let answer = self.try_ask(Method::GET, path, None).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer.text().await.map_err(|error| error.to_string())?;
        if status != StatusCode::OK {
            return Err(format!("{status}: {body}"));
        }
        serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
    }

    /// The JSON answer to a POST, which must succeed.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask(Method::POST, path, Some(body)).await;
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "POST {path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Opens a live stream through the api-gateway, with the token as a browser sends it.
    pub async fn live(&self, path: &str) -> Socket {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        let protocol = format!("bearer.{}", self.token).parse().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        tokio_tungstenite::connect_async(request).await.unwrap().0
    }

    /// The values of an instant PromQL query, by the text of their labels.
    ///
    /// # Errors
    /// What the API says.
    pub async fn query(&self, promql: &str) -> Result<Vec<(Value, f64)>, String> {
        let answer = self.get(&format!("/prometheus/api/v1/query?query={}", encode(promql))).await?;
        let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        Ok(result
            .into_iter()
            .map(|series| (series["metric"].clone(), series["value"][1].as_str().unwrap().parse().unwrap()))
            .collect())
    }
}

/// Percent-encodes a query parameter.
#[must_use]
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
