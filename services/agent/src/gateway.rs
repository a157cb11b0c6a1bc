//! The one connection to the gateway, and what is known about its state.

mod health;
mod token;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Request;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};

pub use health::Health;
pub use token::{Token, TokenUnreadable};

/// Everything that is sent shares one HTTP/2 connection: a gateway ties a silent command stream to its agent by it.
pub struct Gateway {
    endpoint: Endpoint,
    token: Option<Token>,
    connection: Mutex<Connection>,
    /// Until when the gateway does not want to be sent anything.
    busy_until: Mutex<Instant>,
    /// Changes when the gateway asked to close everything.
    closed: watch::Sender<()>,
    pub health: Health,
}

struct Connection {
    channel: Option<Channel>,
    rest_until: Instant,
}

impl Gateway {
    /// Does not connect yet. Without a CA file the gateway's certificate must come from one that this system trusts.
    ///
    /// # Errors
    /// The CA file cannot be read or used, or TLS is asked for and the system trusts nobody.
    pub fn new(uri: &Uri, ca_file: Option<&Path>, token_file: Option<&Path>, health: Health) -> anyhow::Result<Self> {
        let mut endpoint = Endpoint::from(uri.clone())
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        if uri.scheme_str() == Some("https") {
            endpoint = endpoint.tls_config(tls(ca_file)?).context("use the CAs to trust")?;
        }
        Ok(Self {
            endpoint,
            token: token_file.map(Token::new),
            connection: Mutex::new(Connection { channel: None, rest_until: Instant::now() }),
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
                    return connection.channel.get_or_insert_with(|| self.endpoint.connect_lazy()).clone();
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

fn tls(ca_file: Option<&Path>) -> anyhow::Result<ClientTlsConfig> {
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).with_context(|| format!("read the CA file {}", path.display()))?;
        return Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut store = rustls::RootCertStore::empty();
    let (trusted, unusable) = store.add_parsable_certificates(found.certs);
    if trusted == 0 {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        anyhow::bail!(
            "this system trusts no CA; set SIGHTLINE_AGENT_CA_FILE, or install the ca-certificates package {errors:?}"
        );
    }
    tracing::info!(trusted, unusable, "the gateway's certificate is held against the CAs of this system");
    Ok(ClientTlsConfig::new().trust_anchors(store.roots))
}
