//! Where an owner starts, and what it keeps for the next.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::{From, Stream};

use super::{Ended, Lane, Tools};
use crate::evaluation::Evaluation;
use crate::metrics::Signal;
use crate::reload;
use crate::snapshot::Saved;
use crate::store::{Claim, Fenced, Position, Snapshot, Store};

const RETRY: Duration = Duration::from_millis(300);

pub(super) struct Started {
    pub(super) evaluation: Evaluation,
    pub(super) metrics: Lane,
    pub(super) logs: Lane,
}

/// Claims the snapshot and finds the place to read on from, however long Postgres or the broker are away.
pub(super) async fn start(number: u16, epoch: i64, tools: &Tools) -> Result<Started, Ended> {
    loop {
        match try_start(number, epoch, tools).await {
            Ok(started) => return started,
            Err(error) => {
                tracing::warn!(
                    shard = number,
                    error = format!("{error:#}"),
                    "cannot take the shard over yet; trying again"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn try_start(number: u16, epoch: i64, tools: &Tools) -> anyhow::Result<Result<Started, Ended>> {
    let claim = tools.store.claim(number, epoch).await.context("claim the snapshot")?;
    let (metrics, logs) = (Stream::Metrics(number), Stream::Logs(number));
    let current = Arc::clone(&tools.books.borrow());
    let snapshot = match claim {
        Claim::Fenced => return Ok(Err(Ended::Fenced)),
        Claim::Nothing => {
            return Ok(Ok(Started {
                evaluation: Evaluation::new(current),
                metrics: lane(tools, metrics, Signal::Metrics, None).await?,
                logs: lane(tools, logs, Signal::Logs, None).await?,
            }));
        }
        Claim::Snapshot(snapshot) => snapshot,
    };
    let book = if snapshot.revision == current.revision {
        current
    } else {
        reload::load(&tools.store, snapshot.revision, &current).await.context("load the snapshot's rules")?
    };
    let evaluation = match Saved::from_bytes(&snapshot.state) {
        Ok(saved) => Evaluation::restore(book, saved),
        Err(error) => {
            tracing::error!(shard = number, %error, "the snapshot is damaged; what was pending or firing is forgotten");
            Evaluation::new(book)
        }
    };
    Ok(Ok(Started {
        evaluation,
        metrics: lane(tools, metrics, Signal::Metrics, Some(snapshot.metrics)).await?,
        logs: lane(tools, logs, Signal::Logs, Some(snapshot.logs)).await?,
    }))
}

/// Begins to read behind `evaluated`, or where the stream ends: the first owner ever does not evaluate what was before.
async fn lane(tools: &Tools, stream: Stream, signal: Signal, evaluated: Option<Position>) -> anyhow::Result<Lane> {
    let last = tools.bus.progress(stream).await.context("find the end of a stream")?.last;
    let position = evaluated.unwrap_or(Position { sequence: last, published_unix_nano: 0 });
    let from = match position.published_unix_nano {
        0 => From::Sequence(position.sequence + 1),
        published => From::After { sequence: position.sequence, published },
    };
    let follow = tools.bus.follow(stream, from).await;
    Ok(Lane { signal, follow, position, backlog_end: last })
}

/// Whether the snapshot was saved; it is not while Postgres is away.
pub(super) async fn save(number: u16, epoch: i64, store: &Store, snapshot: &Snapshot) -> Result<bool, Ended> {
    match store.save(number, epoch, snapshot).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(Fenced)) => Err(Ended::Fenced),
        Err(error) => {
            tracing::warn!(shard = number, %error, "cannot save the snapshot; trying again");
            Ok(false)
        }
    }
}
