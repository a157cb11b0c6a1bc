//! Keeps the book of rules: loads it when a change is told, and looks every two seconds besides.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::{CancellationToken, Ready};
use sqlx::postgres::PgListener;
use tokio::sync::watch;

use crate::book::Book;
use crate::metrics::Metrics;
use crate::store::{CHANNEL, Store};

const POLL: Duration = Duration::from_secs(2);
/// Many changes in a row are taken up together.
const GATHER: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_millis(500);

/// Loads the book of `revision`, lending what `known` has of it.
///
/// # Errors
/// Postgres.
pub async fn load(store: &Store, revision: i64, known: &Book) -> Result<Arc<Book>, sqlx::Error> {
    let rules = store.rules_at(revision, known).await?;
    Ok(Arc::new(Book::new(revision, rules, known)))
}

/// Loads the newest book, waiting for Postgres if it is away.
pub async fn first(store: &Store, ready: &Ready, metrics: &Metrics) -> Arc<Book> {
    loop {
        let loaded = async {
            let revision = store.revision().await?;
            load(store, revision, &Book::default()).await
        };
        match loaded.await {
            Ok(book) => {
                tracing::info!(revision = book.revision, rules = book.len(), "rules loaded");
                metrics.rules.set(i64::try_from(book.len()).unwrap_or(i64::MAX));
                ready.up();
                return book;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot load the rules; trying again");
                ready.down("the rules could not be loaded yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Brings `books` up to date until the process stops.
///
/// # Errors
/// None; the signature is that of a supervised task.
pub async fn run(
    store: Store,
    books: watch::Sender<Arc<Book>>,
    metrics: Metrics,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let mut listener = None;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = told(&store, &mut listener) => {}
            () = tokio::time::sleep(POLL) => {}
        }
        let newest = async {
            let revision = store.revision().await?;
            let known = Arc::clone(&books.borrow());
            if revision == known.revision {
                return Ok(None);
            }
            load(&store, revision, &known).await.map(Some)
        };
        match newest.await {
            Ok(None) => {}
            Ok(Some(book)) => {
                tracing::info!(revision = book.revision, rules = book.len(), "rules changed");
                metrics.rules.set(i64::try_from(book.len()).unwrap_or(i64::MAX));
                books.send_replace(book);
                tokio::time::sleep(GATHER).await;
            }
            // Readiness says that Postgres is away; the poll comes again.
            Err(error) => tracing::debug!(%error, "cannot look for changed rules"),
        }
    }
}

/// Returns when a change was told, or when one may have been missed. Cancelling is safe.
async fn told(store: &Store, listener: &mut Option<PgListener>) {
    let Some(connected) = listener else {
        match listen(store).await {
            Ok(connected) => *listener = Some(connected),
            Err(error) => {
                tracing::debug!(%error, "cannot listen for changed rules");
                tokio::time::sleep(RETRY).await;
            }
        }
        return;
    };
    if let Err(error) = connected.recv().await {
        tracing::warn!(%error, "no longer hearing of changed rules at once; listening again");
        *listener = None;
    }
}

async fn listen(store: &Store) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(store.pool()).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
