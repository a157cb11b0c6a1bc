//! The one connection to the gateway, and what is known about its state.

mod health;
mod stamp;
mod token;
mod trust;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};

pub use health::Health;
pub use token::{Token, TokenUnreadable};
use trust::Trust;

/// Everything that is sent shares one HTTP/2 connection: a gateway ties a silent command stream to its agent by it.
pub struct Gateway {
    token: Option<Token>,
    connection: Mutex<Connection>,
    /// Until when the gateway does not want to be sent anything.
    busy_until: Mutex<Instant>,
    /// Changes when the gateway asked to close everything.
    closed: watch::Sender<()>,
    pub health: Health,
}

struct Connection {
    trust: Trust,
    endpoint: Endpoint,
    channel: Option<Channel>,
    rest_until: Instant,
}

impl Connection {
    /// A new one where the CA was replaced: the old one goes on as long as somebody uses it.
    fn channel(&mut self) -> Channel {
        if self.trust.changed() {
            match self.trust.endpoint() {
                Ok(endpoint) => {
                    tracing::info!("the CA file was replaced, connecting anew");
                    (self.endpoint, self.channel) = (endpoint, None);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the CA file was replaced and cannot be used, going on with the old one");
                }
            }
        }
        self.channel.get_or_insert_with(|| self.endpoint.connect_lazy()).clone()
    }
}

impl Gateway {
    /// Does not connect yet. Without a CA file the gateway's certificate must come from one that this system trusts.
    ///
    /// # Errors
    /// The CA file cannot be read or used, or TLS is asked for and the system trusts nobody.
    pub fn new(uri: &Uri, ca_file: Option<&Path>, token_file: Option<&Path>, health: Health) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from(uri.clone())
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        let mut trust = Trust::new(endpoint, ca_file.map(Path::to_owned));
        let endpoint = trust.endpoint()?;
        let connection = Connection { trust, endpoint, channel: None, rest_until: Instant::now() };
        Ok(Self {
            token: token_file.map(Token::new),
            connection: Mutex::new(connection),
            busy_until: Mutex::new(Instant::now()),
            closed: watch::Sender::new(()),
            health,
        })
    }

    /// The connection, made when it is first used and again whenever it breaks. Waits while the gateway has asked for
    /// rest.
    pub async fn channel(&self) -> Channel {
        loop {
            let rest_until = {
                let mut connection = self.connection();
                if connection.rest_until <= Instant::now() {
                    return connection.channel();
                }
                connection.rest_until
            };
            tokio::time::sleep_until(rest_until).await;
        }
    }

    /// Closes everything and stays away for `duration`.
    pub fn rest(&self, duration: Duration) {
        {
            let mut connection = self.connection();
            connection.channel = None;
            connection.rest_until = Instant::now() + duration;
        }
        self.closed.send_replace(());
    }

    /// The gateway asked every sender to come back after `delay`.
    pub fn busy(&self, delay: Duration) {
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        *busy_until = (*busy_until).max(Instant::now() + delay);
    }

    /// Until when nothing should be sent, if that is not now.
    pub fn busy_until(&self) -> Option<Instant> {
        let busy_until = *self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        (busy_until > Instant::now()).then_some(busy_until)
    }

    /// Streams that see a change here end.
    pub fn closed(&self) -> watch::Receiver<()> {
        self.closed.subscribe()
    }

    /// Adds this agent's credential.
    ///
    /// # Errors
    /// There should be one, but its file cannot be read.
    pub fn authorize<T>(&self, request: &mut Request<T>) -> Result<(), TokenUnreadable> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.header()?);
        }
        Ok(())
    }

    /// Waits, but not longer than until there is another credential to try.
    pub async fn wait_for_credential(&self, longest: Duration) {
        match &self.token {
            Some(token) => {
                // The only other outcome is that the time is over.
                let _ = tokio::time::timeout(longest, token.changed()).await;
            }
            None => tokio::time::sleep(longest).await,
        }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
