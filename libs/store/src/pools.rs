//! Two pools a service, so that lists and searches never take the connections that pages, leases and consumers need.
//!
//! Every wait on Postgres ends. Postgres itself ends statements and idle transactions, whose locks others wait for; but a
//! server that is cut off says nothing at all, and no option of a connection notices that: so [`Pools::bounded`] gives
//! up by our own clock, and a connection that does not answer when it is given back is thrown away.

use std::io;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::Settings;

/// How long is waited for a free connection, and for the answer of one that is given back.
const ACQUIRE: Duration = Duration::from_secs(5);

const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The pools of a service; clones share them.
#[derive(Debug, Clone)]
pub struct Pools {
    /// For consumers, leases and outboxes.
    pub work: PgPool,
    /// For what people ask. Its statements end after `SIGHTLINE_DATABASE_QUERY_TIMEOUT`.
    pub api: PgPool,
    limit: Duration,
}

impl Pools {
    pub(crate) fn new(settings: &Settings, options: &PgConnectOptions) -> Self {
        let limit = settings.database_transaction_timeout;
        // What our clock gives up is ended by the server as well, a little later.
        let work = pool(options, settings.database_connections, limit + Duration::from_secs(1));
        let api = pool(options, settings.database_api_connections, settings.database_query_timeout);
        Self { work, api, limit }
    }

    /// Does `work` on Postgres, but no longer than a transaction may take; afterwards it counts as away, and nobody
    /// knows whether it was committed.
    ///
    /// # Errors
    /// Those of `work`; that time is up.
    pub async fn bounded<T>(&self, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        tokio::time::timeout(self.limit, work).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} ms", self.limit.as_millis());
            Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text)))
        })
    }

    /// Waits until Postgres answers: who cannot reach it should not take messages that a replica with more luck could
    /// handle.
    pub async fn until_answers(&self) {
        let answers = || tokio::time::timeout(ACQUIRE, sqlx::query("select 1").execute(&self.work));
        while !matches!(answers().await, Ok(Ok(_))) {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

fn pool(options: &PgConnectOptions, connections: u32, limit: Duration) -> PgPool {
    let limit = limit.as_millis().to_string();
    let options = options
        .clone()
        .options([("statement_timeout", limit.as_str()), ("idle_in_transaction_session_timeout", limit.as_str())]);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        // Without this, one that was dropped in the middle of a statement would be asked without end whether it lives,
        // and its place would be taken meanwhile.
        .after_release(|connection, _| {
            Box::pin(async move {
                let ping = tokio::time::timeout(ACQUIRE, connection.ping()).await;
                ping.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
            })
        })
        .connect_lazy_with(options)
}
