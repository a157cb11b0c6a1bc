//! A gate in front of a server: closed, the server is away for whoever comes that way.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes TCP connections on while it is open. It begins open, and is gone when dropped.
pub struct Gate {
    address: SocketAddr,
    url: String,
    open: watch::Sender<bool>,
    _keeper: JoinSet<()>,
}

impl Gate {
    /// A gate before the server at `url`: `scheme://user@host:port/path`, or `host:port` alone.
    ///
    /// # Panics
    /// No port is free.
    pub async fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (before, server, after) = split(url);
        let (open, is_open) = watch::channel(true);
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(listener, server.to_owned(), is_open));
        Self { address, url: format!("{before}{address}{after}"), open, _keeper: keeper }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's URL, through the gate.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets connections through from now on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Breaks every connection, and each new one as it comes.
    pub fn close(&self) {
        self.open.send_replace(false);
    }
}

/// A URL around its `host:port`.
fn split(url: &str) -> (&str, &str, &str) {
    let user = url.find('@').map(|at| at + 1);
    let begin = user.or_else(|| url.find("://").map(|at| at + 3)).unwrap_or_default();
    let end = url[begin..].find('/').map_or(url.len(), |at| begin + at);
    (&url[..begin], &url[begin..end], &url[end..])
}

async fn keep(listener: TcpListener, server: String, is_open: watch::Receiver<bool>) {
    let mut passing = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        passing.spawn(pass(client, server.clone(), is_open.clone()));
    }
}

async fn pass(mut client: TcpStream, server: String, mut is_open: watch::Receiver<bool>) {
    if !*is_open.borrow() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    tokio::select! {
        // Either side may end a connection at any time.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = is_open.wait_for(|open| !open) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_server_is_found_in_a_url() {
        assert_eq!(split("postgres://a:b@h:1/d"), ("postgres://a:b@", "h:1", "/d"));
        assert_eq!(split("redis://h:1"), ("redis://", "h:1", ""));
        assert_eq!(split("h:1"), ("", "h:1", ""));
    }
}
