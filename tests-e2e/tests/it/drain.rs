//! A rolling restart under load: each service in turn is asked to stop, takes leave of whoever is connected, goes by
//! itself, and nothing is lost, doubled or refused for good.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use devstack::services::SERVICES;
use futures::StreamExt as _;
use testkit::eventually;
use tests_e2e::Sightline;
use tests_e2e::client::{Client, Socket, encode};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::books::{SENDERS, Senders, balance};

const PATIENCE: Duration = Duration::from_secs(30);
/// An agent that was told to disconnect stays away for a minute.
const AGENT_RESTS: Duration = Duration::from_secs(60);
/// One for process snapshots, one for commands.
const STREAMS_OF_AN_AGENT: f64 = 2.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_takes_leave_of_everybody_and_loses_nothing() {
    let mut sightline =
        Sightline::start(&[("SIGHTLINE_AGENT_INTERVAL", "1s"), ("SIGHTLINE_AGENT_PROCESS_INTERVAL", "1s")]).await;
    std::fs::write(sightline.demo_log(), "").unwrap();
    sightline.start_agent().await;
    the_agents_streams_are_open(&sightline, PATIENCE).await;
    let admin = sightline.admin().await;
    let senders = Senders::start(&sightline);
    let mut live = Live::open(&admin).await;
    for service in &SERVICES {
        let before = senders.sent();
        stops_by_itself(&mut sightline, service.name);
        append(&sightline, &format!("{} is away", service.name));
        let end = if carries_live_streams(service.name) { Some(live.end().await) } else { None };
        sightline.spawn(service.name);
        sightline.wait_ready(service.name).await;
        senders.flow(before, 2 * SENDERS).await;
        if let Some(end) = end {
            if service.name == "ws-fanout" {
                assert_eq!(end, End::Farewell(CloseCode::Away));
            }
            live = Live::open(&admin).await;
        }
        live.goes_on().await;
    }
    the_agents_streams_are_open(&sightline, AGENT_RESTS + PATIENCE).await;
    for service in &SERVICES {
        the_agent_delivered_once(&admin, &format!("{} is away", service.name)).await;
    }
    balance(&sightline, &admin, senders).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hangs_does_not_hold_up_a_stop() {
    let mut sightline = Sightline::start(&[]).await;
    let admin = sightline.admin().await;
    admin.get("/api/v1/rules").await.unwrap();
    // It holds a connection to each of these now, and will not answer when one of them wants to end it.
    sightline.freeze("api-gateway");
    for service in ["rule-engine", "auth"] {
        stops_by_itself(&mut sightline, service);
    }
}

fn stops_by_itself(sightline: &mut Sightline, service: &str) {
    let stopped = sightline.stop(service);
    println!("{service} stopped in {:?}", stopped.took);
    assert!(stopped.is_clean(), "{service}: {stopped:?}\n{}", sightline.tail(service));
    // Whoever waits for what does not come is cut off at the deadline, and says so.
    let tail = sightline.tail(service);
    assert!(!tail.contains("the shutdown deadline passed"), "{service}:\n{tail}");
}

/// A live stream goes through both.
fn carries_live_streams(service: &str) -> bool {
    ["api-gateway", "ws-fanout"].contains(&service)
}

async fn the_agents_streams_are_open(sightline: &Sightline, patience: Duration) {
    eventually("the agent's streams are open", patience, async || {
        let open = sightline.metric("ingest-gateway", "sightline_ingest_gateway_agent_streams_open").await;
        if open == Some(STREAMS_OF_AN_AGENT) { Ok(()) } else { Err(format!("{open:?}\n{}", sightline.tail("agent"))) }
    })
    .await;
}

async fn the_agent_delivered_once(admin: &Client, line: &str) {
    eventually("the agent delivers its line", PATIENCE, async || {
        let page = admin.get(&format!("/api/v1/logs?contains={}", encode(line))).await?;
        let found = page["items"].as_array().unwrap().len();
        if found == 1 { Ok(()) } else { Err(format!("`{line}` was found {found} times")) }
    })
    .await;
}

fn append(sightline: &Sightline, line: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(sightline.demo_log()).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// A live stream of logs, read by somebody who counts.
struct Live {
    frames: Arc<AtomicUsize>,
    reader: JoinHandle<End>,
}

/// What a client sees at the end of its live stream.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// A close frame, with its code.
    Farewell(CloseCode),
    /// Nothing but the end of the connection.
    Silence,
}

impl Live {
    async fn open(admin: &Client) -> Self {
        let frames = Arc::<AtomicUsize>::default();
        let socket = admin.live("/api/v1/ws/logs").await;
        #[expect(clippy::disallowed_methods, reason = "ends with the stream")]
        let reader = tokio::spawn(read(socket, Arc::clone(&frames)));
        Self { frames, reader }
    }

    /// Waits until more is seen.
    async fn goes_on(&self) {
        let before = self.frames.load(Ordering::Relaxed);
        eventually("the live stream goes on", PATIENCE, async || {
            assert!(!self.reader.is_finished(), "the live stream has ended");
            if self.frames.load(Ordering::Relaxed) > before { Ok(()) } else { Err("no frame came") }
        })
        .await;
    }

    async fn end(&mut self) -> End {
        tokio::time::timeout(PATIENCE, &mut self.reader).await.expect("the live stream does not end").unwrap()
    }
}

async fn read(mut socket: Socket, frames: Arc<AtomicUsize>) -> End {
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Close(Some(frame)) => return End::Farewell(frame.code),
            Message::Close(None) => return End::Silence,
            _ => frames.fetch_add(1, Ordering::Relaxed),
        };
    }
    End::Silence
}
