//! A real HTTP receiver whose answers a test chooses.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use standardwebhooks::Webhook;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What to answer.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16),
    /// 503, come back after so many seconds.
    Busy(u64),
    Redirect(String),
    /// Never.
    Hang,
}

/// What came.
#[derive(Debug)]
pub struct Request {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn verify(&self, secret: &str) {
        Webhook::new(secret).unwrap().verify(&self.body, &self.headers).unwrap();
    }
}

#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: mpsc::UnboundedSender<Request>,
}

/// A listening receiver; it answers as told, then with 200.
pub struct Receiver {
    pub address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Request>,
    _server: JoinSet<()>,
}

impl Receiver {
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        let router = Router::new().fallback(take).with_state(Script { answers, requests: sender });
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, requests, _server: server }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub async fn request(&mut self) -> Request {
        let wait = tokio::time::timeout(crate::support::PATIENCE, self.requests.recv());
        wait.await.expect("a request in time").unwrap()
    }

    pub fn try_request(&mut self) -> Option<Request> {
        self.requests.try_recv().ok()
    }

    pub fn is_quiet(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

async fn take(State(script): State<Script>, headers: HeaderMap, body: Bytes) -> Response {
    let answer = script.answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(200));
    script.requests.send(Request { headers, body }).unwrap();
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Busy(seconds) => {
            (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", seconds.to_string())]).into_response()
        }
        Answer::Redirect(to) => (StatusCode::FOUND, [("location", to)]).into_response(),
        Answer::Hang => std::future::pending().await,
    }
}
