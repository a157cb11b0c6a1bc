//! A gate in front of a server: closed, the server is away for whoever comes that way; frozen, it is silent.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a gate does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Passes each piece on after so long.
    Open(Duration),
    /// Keeps connections and passes nothing on.
    Frozen,
    /// Breaks connections.
    Closed,
}

/// Passes TCP connections on while it is open. It begins open, and is gone when dropped.
pub struct Gate {
    address: SocketAddr,
    url: String,
    state: watch::Sender<State>,
    abandoned: watch::Sender<u64>,
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
        let (state, seen) = watch::channel(State::Open(Duration::ZERO));
        let (abandoned, since) = watch::channel(0);
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(listener, server.to_owned(), seen, since));
        Self { address, url: format!("{before}{address}{after}"), state, abandoned, _keeper: keeper }
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

    /// Lets connections through from now on. Those that were frozen break.
    pub fn open(&self) {
        self.state.send_replace(State::Open(Duration::ZERO));
    }

    /// Lets connections through, each piece after a delay.
    pub fn slow(&self, delay: Duration) {
        self.state.send_replace(State::Open(delay));
    }

    /// Breaks every connection, and each new one as it comes.
    pub fn close(&self) {
        self.state.send_replace(State::Closed);
    }

    /// Keeps every connection, also new ones, and passes nothing on: a server that is silent.
    pub fn freeze(&self) {
        self.state.send_replace(State::Frozen);
    }

    /// Silences the connections that there are, for good, and lets new ones pass: a server that lost its power and came back.
    pub fn abandon(&self) {
        self.abandoned.send_modify(|times| *times += 1);
    }
}

/// A URL around its `host:port`.
fn split(url: &str) -> (&str, &str, &str) {
    let user = url.find('@').map(|at| at + 1);
    let begin = user.or_else(|| url.find("://").map(|at| at + 3)).unwrap_or_default();
    let end = url[begin..].find('/').map_or(url.len(), |at| begin + at);
    (&url[..begin], &url[begin..end], &url[end..])
}

async fn keep(listener: TcpListener, server: String, state: watch::Receiver<State>, abandoned: watch::Receiver<u64>) {
    let mut passing = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (server, state, mut abandoned) = (server.clone(), state.clone(), abandoned.clone());
        abandoned.mark_unchanged();
        passing.spawn(async move {
            let mut client = client;
            let is_over = tokio::select! {
                () = pass(&mut client, server, state) => true,
                _ = abandoned.changed() => false,
            };
            if !is_over {
                // Nobody hears that the server's side is gone.
                std::future::pending::<()>().await;
            }
        });
    }
}

async fn pass(client: &mut TcpStream, server: String, mut state: watch::Receiver<State>) {
    if *state.borrow() == State::Closed {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let is_over = {
        let (there, back) = (state.clone(), state.clone());
        let mut over = state.clone();
        tokio::select! {
            // Either side may end a connection at any time.
            () = pump(from_client, to_server, there) => true,
            () = pump(from_server, to_client, back) => true,
            _ = over.wait_for(|state| !matches!(state, State::Open(_))) => false,
        }
    };
    if !is_over {
        let _ = state.wait_for(|state| *state != State::Frozen).await;
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, state: watch::Receiver<State>) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let now = *state.borrow();
        let delay = match now {
            State::Open(delay) => delay,
            // Whoever passes this connection on has seen it too.
            State::Frozen | State::Closed => std::future::pending().await,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
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
