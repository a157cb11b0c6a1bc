//! A real HTTP receiver whose answers a test chooses.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use standardwebhooks::Webhook;
use tokio::sync::{Notify, mpsc};
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
    /// 200, as soon as the test says so.
    When(Arc<Notify>),
}

/// What came.
#[derive(Debug)]
pub struct Request {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub answer: Answer,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Which notification of its group it tells, as [`numbered`](crate::support::numbered) says in it.
    pub fn sequence(&self) -> u64 {
        self.json()["alerts"][0]["annotations"]["sequence"].as_str().unwrap().parse().unwrap()
    }

    pub fn verify(&self, secret: &str) {
        Webhook::new(secret).unwrap().verify(&self.body, &self.headers).unwrap();
    }
}

#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: mpsc::UnboundedSender<Request>,
    hanging: Arc<AtomicUsize>,
}

/// A request that waits for its answer.
struct Hanging(Arc<AtomicUsize>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A listening receiver; it answers as told, then with 200.
pub struct Receiver {
    pub address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Request>,
    hanging: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl Receiver {
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        let hanging = Arc::new(AtomicUsize::new(0));
        let script = Script { answers, requests: sender, hanging: Arc::clone(&hanging) };
        let router = Router::new().fallback(take).with_state(script);
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, requests, hanging, _server: server }
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

    /// Requests that hang, and whose senders still wait for an answer.
    pub fn hanging(&self) -> usize {
        self.hanging.load(Ordering::SeqCst)
    }

    pub fn is_quiet(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

async fn take(State(script): State<Script>, headers: HeaderMap, body: Bytes) -> Response {
    let answer = script.answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(200));
    script.hanging.fetch_add(1, Ordering::SeqCst);
    let hanging = Hanging(Arc::clone(&script.hanging));
    script.requests.send(Request { headers, body, answer: answer.clone() }).unwrap();
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Busy(seconds) => {
            (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", seconds.to_string())]).into_response()
        }
        Answer::Redirect(to) => (StatusCode::FOUND, [("location", to)]).into_response(),
        Answer::When(said) => {
            said.notified().await;
            StatusCode::OK.into_response()
        }
        Answer::Hang => {
            let _hanging = hanging;
            std::future::pending().await
        }
    }
}
