//! Two pools a service, so that lists and searches never take the connections that pages, leases and consumers need.
//!
//! Every wait on Postgres ends. Postgres itself ends statements and idle transactions, whose locks others wait for; but a
//! server that is cut off says nothing at all, and no option of a connection notices that: so [`Pools::bounded`] gives
//! up by our own clock, and a connection that does not answer when it is given back is thrown away.
//!
//! Nor is one given back whose work was cut off in the middle: the answers that are still on their way to it would be taken
//! for those to the next one's questions.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::Settings;

/// How long is waited for a free connection, and for the answer of one that is given back.
const ACQUIRE: Duration = Duration::from_secs(5);

const ASK_AGAIN: Duration = Duration::from_millis(250);

/// How long a transaction may stand open while nobody asks anything in it: who fell silent must not hold its locks for as long as
/// the slowest work may take.
const IDLE: Duration = Duration::from_secs(5);

/// A connection's age and the time since a cut are looked at one after the other.
const MARGIN: Duration = Duration::from_secs(1);

/// The pools of a service; clones share them.
#[derive(Debug, Clone)]
pub struct Pools {
    /// For consumers, leases and outboxes.
    pub work: PgPool,
    /// For what people ask. Its statements end after `SIGHTLINE_DATABASE_QUERY_TIMEOUT`.
    pub api: PgPool,
    limit: Duration,
    cuts: Cuts,
}

/// When work was cut off last. Nobody can say which connections it had, so all that there were then are closed when they are
/// given back: a handful, once in a while.
#[derive(Debug, Clone, Default)]
struct Cuts(Arc<Mutex<Option<Instant>>>);

/// Work that has not ended. Dropped so, it was cut off.
struct Unended<'c>(Option<&'c Cuts>);

impl Cuts {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether a connection of this age may have been in use then.
    fn may_have_met(&self, age: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|cut| age + MARGIN >= cut.elapsed())
    }
}

impl Drop for Unended<'_> {
    fn drop(&mut self) {
        if let Some(cuts) = self.0 {
            cuts.note();
        }
    }
}

impl Pools {
    pub(crate) fn new(settings: &Settings, options: &PgConnectOptions) -> Self {
        let limit = settings.database_transaction_timeout;
        let cuts = Cuts::default();
        // What our clock gives up is ended by the server as well, a little later.
        let work = pool(options, settings.database_connections, limit + Duration::from_secs(1), &cuts);
        let api = pool(options, settings.database_api_connections, settings.database_query_timeout, &cuts);
        Self { work, api, limit, cuts }
    }

    /// Does `work` on Postgres, but no longer than a transaction may take; afterwards it counts as away, and nobody
    /// knows whether it was committed. Connections that were in use when it ended so, or when this was dropped, are closed.
    ///
    /// # Errors
    /// Those of `work`; that time is up.
    pub async fn bounded<T>(&self, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        let mut work = std::pin::pin!(work);
        // Goes before the work does, and so before that gives anything back.
        let mut unended = Unended(Some(&self.cuts));
        let done = tokio::time::timeout(self.limit, work.as_mut()).await;
        if done.is_ok() {
            unended.0 = None;
        }
        done.unwrap_or_else(|_| {
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

fn pool(options: &PgConnectOptions, connections: u32, limit: Duration, cuts: &Cuts) -> PgPool {
    let cuts = cuts.clone();
    let (idle, limit) = (limit.min(IDLE).as_millis().to_string(), limit.as_millis().to_string());
    let options = options
        .clone()
        .options([("statement_timeout", limit.as_str()), ("idle_in_transaction_session_timeout", idle.as_str())]);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        // Without this, one that was dropped in the middle of a statement would be asked without end whether it lives,
        // and its place would be taken meanwhile.
        .after_release(move |connection, given_back| {
            let is_suspect = cuts.may_have_met(given_back.age);
            Box::pin(async move {
                if is_suspect {
                    // An error, since a polite farewell may find nobody who listens.
                    let text = "work was cut off, maybe in the middle of a question";
                    return Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, text)));
                }
                let ping = tokio::time::timeout(ACQUIRE, connection.ping()).await;
                ping.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
            })
        })
        .connect_lazy_with(options)
}
