//! A door in front of a server: closed, the server is away for whoever comes through it.

use std::net::SocketAddr;
use std::sync::Arc;

use lifecycle::CancellationToken;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Passes TCP connections on to a server while it is open.
pub struct Gate {
    address: SocketAddr,
    open: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Gate {
    /// A gate before `server` (`host:port`), closed.
    pub async fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(watch::Sender::new(false));
        #[expect(clippy::disallowed_methods, reason = "ends with the gate")]
        let task = tokio::spawn(keep(listener, server.to_owned(), Arc::clone(&open)));
        Self { address, open, task }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Cuts every connection, and every new one as it comes.
    pub fn close(&self) {
        self.open.send_replace(false);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(listener: TcpListener, server: String, open: Arc<watch::Sender<bool>>) {
    let mut passing = JoinSet::new();
    let mut state = open.subscribe();
    let mut cut = CancellationToken::new();
    loop {
        tokio::select! {
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                if !*state.borrow_and_update() {
                    cut.cancel();
                    cut = CancellationToken::new();
                }
            }
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if *state.borrow() {
                    passing.spawn(pass(client, server.clone(), cut.clone()));
                }
            }
            Some(_) = passing.join_next() => {}
        }
    }
}

async fn pass(mut client: TcpStream, server: String, cut: CancellationToken) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    tokio::select! {
        // Either side may end a connection at any time; that is what a gate is for.
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        () = cut.cancelled() => {}
    }
}
