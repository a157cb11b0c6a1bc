//! A port with a few routes, and clients that write bytes.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::routing::{get, post};
use axum::{Extension, Router};
use clap::Parser as _;
use edge::{Listener, Metrics, Peer, Protocols, Settings, Stalled, Tls, bind};
use futures::StreamExt as _;
use http::StatusCode;
use http_body_util::BodyExt as _;
use lifecycle::Process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

/// A port in service.
pub struct Port {
    pub address: SocketAddr,
    pub process: Process,
}

impl Port {
    pub async fn open(arguments: &[&str]) -> Self {
        Self::open_with(arguments, Tls::OFF).await
    }

    pub async fn open_with(arguments: &[&str], tls: Tls) -> Self {
        let process = Process::for_test();
        let tcp = bind(settings::loopback(0)).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let settings = Arguments::parse_from([&["test"], arguments].concat()).settings;
        let listener = Listener {
            port: "http",
            protocols: Protocols::Http,
            tcp,
            tls,
            router: routes(),
            settings,
            metrics: process.register(Metrics::register),
            stopping: process.stopping(),
        };
        process.spawn("port", listener.run());
        Self { address, process }
    }

    pub async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// The value of a metric, with its labels.
    pub fn metric(&self, name: &str) -> u64 {
        testkit::metric(&self.process, name).unwrap_or_default()
    }

    pub async fn until_metric(&self, name: &str, value: u64) {
        testkit::eventually(name, PATIENCE, async || {
            let now = self.metric(name);
            if now == value { Ok(()) } else { Err(format!("{now}")) }
        })
        .await;
    }
}

fn routes() -> Router {
    Router::new()
        .route("/refuse", post(async || StatusCode::PAYLOAD_TOO_LARGE))
        .route("/read", post(read))
        .route("/who", get(who))
        .route("/lasting", get(async |Extension(peer): Extension<Peer>| endless(Some(peer.lasting()))))
        .route("/ageing", get(async || endless(None)))
        .route("/large", get(async || vec![b'x'; 64 << 20]))
}

/// How long the body was, or why it could not be read.
async fn read(request: Request) -> String {
    match request.into_body().collect().await {
        Ok(body) => body.to_bytes().len().to_string(),
        Err(error) => {
            let error = error.into_inner();
            if error.downcast_ref::<Stalled>().is_some() { "stalled".to_owned() } else { error.to_string() }
        }
    }
}

async fn who(Extension(peer): Extension<Peer>) -> String {
    let name = peer.certificate.as_ref().and_then(|certificate| certificate.common_name.clone());
    format!("{} {}", peer.client, name.unwrap_or_default())
}

/// An answer that never ends, with what it holds.
fn endless(held: Option<edge::Lasting>) -> Body {
    let begin = futures::stream::iter([Ok::<_, std::convert::Infallible>("begin\n")]);
    Body::from_stream(begin.chain(futures::stream::pending().map(move |()| {
        let _held = &held;
        Ok("")
    })))
}

/// Whoever writes bytes.
pub struct Client(pub TcpStream);

impl Client {
    pub async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Everything until the server closes, as text; what was read before a reset counts.
    pub async fn rest(&mut self) -> String {
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut answer)).await.expect("the server closes");
        String::from_utf8(answer).unwrap()
    }

    pub async fn until(&mut self, text: &str) -> String {
        let mut answer = Vec::new();
        let found = async {
            while !String::from_utf8_lossy(&answer).contains(text) {
                assert_ne!(self.0.read_buf(&mut answer).await.unwrap(), 0, "closed before {text}");
            }
        };
        timeout(PATIENCE, found).await.expect(text);
        String::from_utf8(answer).unwrap()
    }
}
