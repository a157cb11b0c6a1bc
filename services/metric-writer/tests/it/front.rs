//! Stands between the writer and the real VictoriaMetrics, passes everything on, and can be told to misbehave.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Redirect, Response};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What happens to writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writes {
    #[default]
    Pass,
    /// Answered with 503.
    Unavailable,
    /// Answered as stored and lost, as by a store that is killed before it flushes.
    Lost,
    /// Refused with 400 when these bytes occur in the unpacked request.
    Refused(&'static str),
    /// Refused with 400, as by a server that is no store.
    AllRefused,
    /// Refused with 413 when a packed request has more bytes, as by a proxy in between.
    AtMost(usize),
    /// Sent to a page that answers 200, as by a proxy that wants a login.
    Redirected,
    /// Answered with 200 and a page, as by a default site.
    Page,
    /// Never answered.
    Silent,
    /// Passed on after so many milliseconds.
    After(u64),
}

#[derive(Debug, Default)]
struct Told {
    writes: Writes,
    /// The request bodies of writes so far, unpacked.
    seen: Vec<Vec<u8>>,
    /// Added to the store's start time.
    later: u64,
    looks: usize,
}

#[derive(Clone)]
struct Shared {
    told: Arc<Mutex<Told>>,
    http: reqwest::Client,
}

impl Shared {
    /// Notes a write; says what becomes of it, and whether it has the bytes that are refused.
    fn write(&self, unpacked: Vec<u8>) -> (Writes, bool) {
        let mut told = self.told.lock().unwrap();
        let refused = matches!(told.writes, Writes::Refused(text) if holds(&unpacked, text));
        told.seen.push(unpacked);
        (told.writes, refused)
    }
}

/// Ends with its listener when dropped.
pub struct Front {
    pub address: SocketAddr,
    told: Arc<Mutex<Told>>,
    _server: JoinSet<()>,
}

impl Front {
    pub async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn at(address: SocketAddr) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let shared = Shared { told: Arc::clone(&told), http: reqwest::Client::new() };
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(pass).with_state(shared);
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, told, _server: server }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn writes(&self, writes: Writes) {
        self.told.lock().unwrap().writes = writes;
    }

    pub fn seen_writes(&self) -> usize {
        self.told.lock().unwrap().seen.len()
    }

    /// How many writes so far held `text`.
    pub fn writes_with(&self, text: &str) -> usize {
        self.told.lock().unwrap().seen.iter().filter(|body| holds(body, text)).count()
    }

    /// How many writes so far held `one` and `other`.
    pub fn writes_with_both(&self, one: &str, other: &str) -> usize {
        let told = self.told.lock().unwrap();
        told.seen.iter().filter(|body| holds(body, one) && holds(body, other)).count()
    }

    /// Forgets the writes so far.
    pub fn clear(&self) {
        self.told.lock().unwrap().seen.clear();
    }

    /// How often somebody looked at the store's own metrics.
    pub fn looks(&self) -> usize {
        self.told.lock().unwrap().looks
    }

    /// How many writes there were, and the bytes of the largest.
    pub fn sizes(&self) -> (usize, usize) {
        let told = self.told.lock().unwrap();
        (told.seen.len(), told.seen.iter().map(Vec::len).max().unwrap_or_default())
    }

    /// Makes the store look like another process.
    pub fn restart_store(&self) {
        self.told.lock().unwrap().later += 100;
    }
}

fn holds(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

async fn pass(State(shared): State<Shared>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let mut later = 0;
    if uri.path() == "/login" {
        return Html("who are you?").into_response();
    }
    if uri.path() == "/api/v1/write" {
        let unpacked = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        let (writes, refused) = shared.write(unpacked);
        match writes {
            Writes::Unavailable => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Writes::Lost => return StatusCode::NO_CONTENT.into_response(),
            Writes::Refused(_) if refused => return (StatusCode::BAD_REQUEST, "cannot take that").into_response(),
            Writes::AllRefused => return (StatusCode::BAD_REQUEST, "this is no store").into_response(),
            Writes::AtMost(most) if body.len() > most => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
            Writes::Redirected => return Redirect::to("/login").into_response(),
            Writes::Page => return Html("welcome").into_response(),
            Writes::Silent => return std::future::pending().await,
            Writes::After(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
            Writes::Pass | Writes::Refused(_) | Writes::AtMost(_) => {}
        }
    } else if uri.path() == "/metrics" {
        let mut told = shared.told.lock().unwrap();
        told.looks += 1;
        later = told.later;
    }
    let url = format!("{}{}", testkit::metrics_url(), uri);
    let mut request = shared.http.request(method, url).body(body);
    for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
        request = request.header(name, value);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.bytes().await.unwrap();
    if later > 0 {
        return (status, with_start_time_later(&String::from_utf8_lossy(&text), later)).into_response();
    }
    (status, text).into_response()
}

fn with_start_time_later(metrics: &str, later: u64) -> String {
    let mut out = String::new();
    for line in metrics.lines() {
        match line.strip_prefix("process_start_time_seconds ") {
            Some(time) => {
                let time: u64 = time.trim().parse().unwrap();
                out.push_str(&format!("process_start_time_seconds {}\n", time + later));
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}
