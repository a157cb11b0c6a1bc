//! What a request may know of the connection that it came by.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lifecycle::CancellationToken;
use tokio::sync::watch;

use crate::certificate::Certificate;

/// Who is at the other end, in each request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who sends: behind trusted proxies, the hop before them. IPv4 addresses are always written as such.
    pub client: IpAddr,
    /// The other end of the connection itself.
    pub socket: SocketAddr,
    /// What the client showed, where its authority was asked for and has signed it.
    pub certificate: Option<Arc<Certificate>>,
    /// Cancelled when the connection has lived long enough: streams on it end.
    pub aged: CancellationToken,
    pub(crate) lasting: watch::Sender<usize>,
}

impl Peer {
    pub(crate) fn new(socket: SocketAddr, certificate: Option<Arc<Certificate>>) -> Self {
        let client = socket.ip().to_canonical();
        Self { client, socket, certificate, aged: CancellationToken::new(), lasting: watch::Sender::new(0) }
    }

    /// The connection does not age while this is held: for streams whose clients would not open them again.
    #[must_use]
    pub fn lasting(&self) -> Lasting {
        self.lasting.send_modify(|held| *held += 1);
        Lasting(self.lasting.clone())
    }

    /// Resolves when nothing on the connection has to last, maybe at once.
    pub(crate) async fn nothing_lasts(&self) {
        // The sender is our own, so this ends with nothing but the state that is waited for.
        let _ = self.lasting.subscribe().wait_for(|held| *held == 0).await;
    }
}

/// Keeps a connection from ageing until it is dropped.
#[derive(Debug)]
pub struct Lasting(watch::Sender<usize>);

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}
