//! The world outside: an HTTP server that takes webhooks and remembers when each came.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What came in.
#[derive(Debug, Clone)]
pub struct Call {
    pub at: Instant,
    /// `webhook-id`
    pub id: String,
    /// Empty when there was none.
    pub traceparent: String,
    pub body: Value,
}

type Calls = Arc<Mutex<Vec<Call>>>;

/// A webhook receiver on loopback.
pub struct Receiver {
    pub url: String,
    calls: Calls,
    task: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let calls = Calls::default();
        let router = Router::new().route("/hook", post(take)).with_state(Arc::clone(&calls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with the receiver")]
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, calls, task }
    }

    /// How many calls came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Everything that came so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(calls): State<Calls>, headers: HeaderMap, Json(body): Json<Value>) -> StatusCode {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let call = Call { at: Instant::now(), id: text("webhook-id"), traceparent: text("traceparent"), body };
    calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    StatusCode::NO_CONTENT
}
