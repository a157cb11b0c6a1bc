//! The WebSockets themselves: who may open one, and how long it lasts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use authn::{Permission, Principal, Verifier};
use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts as _, RawQuery, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use fault::{Fault, Kind as FaultKind};
use lifecycle::CancellationToken;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::frame::Frame;
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::queue::{Next, Queue, Room};
use crate::topic::{Listening, Topic};
use crate::wanted::Wanted;

const PING_EVERY: Duration = Duration::from_secs(30);
/// Of what a client sends, of which nothing is used.
const LARGEST_MESSAGE: usize = 64 << 10;
/// What is written at once; a frame that is larger is written alone.
const WRITE_BUFFER: usize = 128 << 10;
/// The subprotocol that is answered, so that the token beside it is not.
const PROTOCOL: &str = "sightline.v1";

/// What every socket can reach.
pub(crate) struct Shared {
    pub(crate) verifier: Verifier,
    pub(crate) topics: Vec<Topic>,
    pub(crate) room: Room,
    /// The largest frame that a queue lets through.
    pub(crate) largest_frame: usize,
    pub(crate) places: Places,
    pub(crate) stalled_after: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) stopping: CancellationToken,
    /// Open sockets: a server that shuts down gracefully does not wait for what it has upgraded.
    pub(crate) sockets: TaskTracker,
}

/// `/ws/metrics`, `/ws/logs` and `/ws/alerts`, also below `/api/v1` as the api-gateway passes them through.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for topic in &shared.topics {
        let (name, topic) = (topic.kind.as_str(), topic.clone());
        let open = move |State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery, request: Request| async move {
            open(shared, topic, query.unwrap_or_default(), request).await.unwrap_or_else(Fault::into_response)
        };
        router =
            router.route(&format!("/ws/{name}"), any(open.clone())).route(&format!("/api/v1/ws/{name}"), any(open));
    }
    router.with_state(Arc::clone(shared))
}

async fn open(shared: Arc<Shared>, topic: Topic, query: String, request: Request) -> fault::Result<Response> {
    let caller = shared.verifier.request(request.headers()).await?;
    caller.require(match topic.kind {
        Kind::Metrics => Permission::MetricsRead,
        Kind::Logs => Permission::LogsRead,
        Kind::Alerts => Permission::AlertsRead,
    })?;
    let wanted = Wanted::read(topic.kind, &query, &caller.scope()).await?;
    let place = shared.places.take(&caller.tenant).ok_or_else(|| {
        let text = "too many live streams are open; try again later";
        Fault::new(FaultKind::Unavailable, "too_many_clients", text).retry_after(Duration::from_secs(5))
    })?;
    let protocol = answered_protocol(request.headers());
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| Fault::invalid("websocket_expected", "open this address as a WebSocket"))?;
    let upgrade = upgrade
        .max_message_size(LARGEST_MESSAGE)
        .max_frame_size(LARGEST_MESSAGE)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(2 * WRITE_BUFFER + shared.largest_frame)
        .protocols(protocol);
    let open = shared.sockets.token();
    Ok(upgrade.on_upgrade(async move |socket| {
        serve(shared, topic, caller, wanted, socket).await;
        drop((open, place));
    }))
}

/// A browser closes a socket of whose offered subprotocols none is answered. Whoever offers nothing but the token gets it back.
fn answered_protocol(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    let offered: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let answered = offered.iter().find(|name| **name == PROTOCOL);
    answered.or_else(|| offered.iter().find(|name| name.starts_with("bearer."))).map(|name| (*name).to_owned())
}

async fn serve(shared: Arc<Shared>, topic: Topic, caller: Principal, wanted: Wanted, mut socket: WebSocket) {
    let client = Client::new(caller.tenant, wanted, Queue::new(&shared.room));
    let expires = caller.expires.duration_since(SystemTime::now()).unwrap_or_default();
    let end = tokio::select! {
        end = talk(&shared, topic.join(client), &mut socket) => end,
        () = tokio::time::sleep(expires) => Some((close_code::POLICY, "the token has expired; open the stream again with a new one")),
        () = shared.verifier.until_revoked(&caller.credential) => Some((close_code::POLICY, "the token was taken back; log in again")),
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
async fn talk(shared: &Shared, listening: Listening, socket: &mut WebSocket) -> End {
    let mut ping = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    let live = listening.live();
    tokio::pin!(live);
    let mut greeted = false;
    loop {
        let message = tokio::select! {
            () = &mut live, if !greeted => {
                greeted = true;
                Frame::Hello.text()
            }
            next = listening.client.queue.next(), if greeted => match next {
                Next::Frame(frame) => frame,
                Next::Dropped(count) => Frame::Dropped { count }.text(),
            },
            _ = ping.tick() => Frame::Ping.text(),
            // Also while the broker is away: who gives up waiting leaves at once.
            incoming = socket.recv() => match incoming {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => continue,
            },
        };
        match timeout(shared.stalled_after, socket.send(Message::Text(message))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => {
                shared.metrics.stalled_clients.inc();
                return Some((close_code::POLICY, "the client does not read"));
            }
        }
    }
}
