//! The WebSockets themselves: who may open one, and how long it lasts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use authn::{Permission, Principal, Verifier};
use axum::Router;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts as _, RawQuery, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use fault::{Fault, Kind as FaultKind};
use lifecycle::CancellationToken;
use selector::Selector;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::client::{Client, Wanted};
use crate::metrics::Metrics;
use crate::queue::{Next, Queue};
use crate::topic::{Kind, Topic};

const PING_EVERY: Duration = Duration::from_secs(30);
/// Of what a client sends, of which nothing is used.
const LARGEST_MESSAGE: usize = 64 << 10;

/// What every socket can reach.
pub(crate) struct Shared {
    pub(crate) verifier: Verifier,
    pub(crate) topics: [(Kind, Topic); 3],
    pub(crate) queue: usize,
    pub(crate) most_clients: usize,
    pub(crate) stalled_after: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) stopping: CancellationToken,
    /// Open sockets: a server that shuts down gracefully does not wait for what it has upgraded.
    pub(crate) sockets: TaskTracker,
}

impl Shared {
    fn topic(&self, kind: Kind) -> Option<&Topic> {
        self.topics.iter().find(|(found, _)| *found == kind).map(|(_, topic)| topic)
    }
}

/// `/ws/metrics`, `/ws/logs` and `/ws/alerts`, also below `/api/v1` as the api-gateway passes them through.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for (name, kind) in [("metrics", Kind::Metrics), ("logs", Kind::Logs), ("alerts", Kind::Alerts)] {
        let open = move |State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery, request: Request| async move {
            open(shared, kind, query.unwrap_or_default(), request).await.unwrap_or_else(Fault::into_response)
        };
        router = router.route(&format!("/ws/{name}"), any(open)).route(&format!("/api/v1/ws/{name}"), any(open));
    }
    router.with_state(shared)
}

async fn open(shared: Arc<Shared>, kind: Kind, query: String, request: Request) -> fault::Result<Response> {
    let caller = shared.verifier.request(request.headers()).await?;
    caller.require(match kind {
        Kind::Metrics => Permission::MetricsRead,
        Kind::Logs => Permission::LogsRead,
        Kind::Alerts => Permission::AlertsRead,
    })?;
    let wanted = wanted(kind, &query)?;
    if shared.topics.iter().map(|(_, topic)| topic.listeners()).sum::<usize>() >= shared.most_clients {
        return Err(Fault::new(
            FaultKind::Unavailable,
            "too_many_clients",
            "too many live streams are open; try again later",
        )
        .retry_after(Duration::from_secs(5)));
    }
    let protocol = offered_protocol(request.headers());
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| Fault::invalid("websocket_expected", "open this address as a WebSocket"))?;
    let upgrade = upgrade.max_message_size(LARGEST_MESSAGE).max_frame_size(LARGEST_MESSAGE).protocols(protocol);
    let open = shared.sockets.token();
    Ok(upgrade.on_upgrade(async move |socket| {
        serve(shared, kind, caller, wanted, socket).await;
        drop(open);
    }))
}

/// A browser closes a socket whose offered subprotocol is not taken.
fn offered_protocol(headers: &HeaderMap) -> Option<String> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    offered.split(',').map(str::trim).find(|name| name.starts_with("bearer.")).map(str::to_owned)
}

fn wanted(kind: Kind, query: &str) -> fault::Result<Wanted> {
    let mut wanted = Wanted::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "match" => {
                wanted.selector = Selector::parse(&value).map_err(|error| Fault::field("match", error.to_string()))?;
            }
            "name" if kind == Kind::Metrics => wanted.names.push(series::metric_name(&value)),
            "resource_id" => wanted.resource_id = Some(value.into_owned()),
            other => return Err(Fault::field(other, "this stream does not know this parameter")),
        }
    }
    Ok(wanted)
}

async fn serve(shared: Arc<Shared>, kind: Kind, caller: Principal, wanted: Wanted, mut socket: WebSocket) {
    let Some(topic) = shared.topic(kind) else { return };
    let client = Client { tenant: caller.tenant, wanted, queue: Queue::new(shared.queue) };
    let expires = caller.expires.duration_since(SystemTime::now()).unwrap_or_default();
    let end = tokio::select! {
        end = talk(&shared, topic, client, &mut socket) => end,
        () = tokio::time::sleep(expires) => Some((close_code::POLICY, "the token has expired; open the stream again with a new one")),
        () = shared.stopping.cancelled() => Some((close_code::AWAY, "the server is going away; open the stream again")),
    };
    if let Some((code, reason)) = end {
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // A client that does not read its farewell is gone all the same.
        let _ = timeout(Duration::from_secs(1), socket.send(close)).await;
    }
}

type End = Option<(u16, &'static str)>;

/// Sends what the client wants until it leaves or stalls.
async fn talk(shared: &Shared, topic: &Topic, client: Client, socket: &mut WebSocket) -> End {
    let listening = topic.listen(client).await;
    if socket.send(text(&json!({ "type": "hello" }))).await.is_err() {
        return None;
    }
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        let message = tokio::select! {
            next = listening.client.queue.next() => match next {
                Next::Frame(frame) => Message::Text(frame),
                Next::Dropped(count) => text(&json!({ "type": "dropped", "count": count })),
            },
            _ = ping.tick() => text(&json!({ "type": "ping" })),
            incoming = socket.recv() => match incoming {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => continue,
            },
        };
        match timeout(shared.stalled_after, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => {
                shared.metrics.stalled.inc();
                return Some((close_code::POLICY, "the client does not read"));
            }
        }
    }
}

fn text(value: &serde_json::Value) -> Message {
    Message::Text(Utf8Bytes::from(value.to_string()))
}
