//! A way to Redis that can be cut.

use settings::Secret;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

pub struct Proxy {
    url: Secret,
    open: watch::Sender<bool>,
    _connections: JoinSet<()>,
}

impl Proxy {
    pub async fn to(redis: &Secret) -> Self {
        let mut url = Url::parse(redis.reveal()).unwrap();
        let target = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(6379));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_ip_host([127, 0, 0, 1].into()).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let (open, is_open) = watch::channel(true);
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                carried.spawn(carry(stream, target.clone(), is_open.clone()));
            }
        });
        Self { url: Secret::from(url.to_string()), open, _connections: connections }
    }

    pub fn url(&self) -> Secret {
        self.url.clone()
    }

    /// Breaks every connection and lets none come about.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn carry(mut stream: TcpStream, target: String, mut is_open: watch::Receiver<bool>) {
    if !*is_open.borrow() {
        return;
    }
    let mut upstream = TcpStream::connect(target).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut stream, &mut upstream) => {}
        _ = is_open.wait_for(|open| !open) => {}
    }
}
