//! Where an owner starts.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::{Follow, From};

use super::{Ended, unix_nano_now};
use crate::evaluation::{Evaluation, Limits, PARTS, Restored};
use crate::reload;
use crate::rule_set::RuleSet;
use crate::saved::Saved;
use crate::shard::{Progress, Tools};
use crate::signal::Signal;
use crate::store::{Attempt, Claim, LaneId, Position, SavedLane};

const RETRY: Duration = Duration::from_millis(300);
/// Owners that a message may end before it is set aside.
const ATTEMPTS: i64 = 2;

pub(super) struct Started {
    pub(super) evaluation: Evaluation,
    pub(super) follow: Follow,
    pub(super) position: Position,
    pub(super) backlog_end: u64,
    pub(super) generations: Vec<i64>,
    pub(super) noted: VecDeque<(u64, i64)>,
    pub(super) set_aside: HashSet<Attempt>,
    pub(super) is_careful: bool,
    /// Nobody has saved anything yet.
    pub(super) is_first: bool,
}

/// Claims the snapshot and finds the place to read on from. While Postgres or the broker are away this goes on; the lane is
/// given up from outside if that takes too long.
pub(super) async fn start(id: LaneId, epoch: i64, tools: &Tools, progress: &Progress) -> Result<Started, Ended> {
    loop {
        match try_start(id, epoch, tools, progress).await {
            Ok(started) => return started,
            Err(error) => {
                tracing::warn!(lane = %id, error = format!("{error:#}"), "cannot take the lane over yet; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn try_start(
    id: LaneId,
    epoch: i64,
    tools: &Tools,
    progress: &Progress,
) -> anyhow::Result<Result<Started, Ended>> {
    let claim = tools.store.claim(id, epoch).await.context("claim the snapshot")?;
    let limits = tools.settings.limits(id.signal, tools.bus.settings().shards);
    let current = Arc::clone(&tools.sets.borrow());
    let last = tools.bus.progress(id.signal.stream(id.number)).await.context("find the end of the stream")?.last;
    progress.alive();
    // Which resources log rules are about is not saved: what was reported stands until they had time to write again.
    if id.signal == Signal::Metrics {
        tools.store.forget_bindings(id, epoch).await.context("forget what was reported")?;
    }
    let set_aside = tools.store.failed(id, ATTEMPTS).await.context("look for failed messages")?;
    let mut started = match claim {
        Claim::Fenced => return Ok(Err(Ended::Fenced)),
        Claim::Nothing => {
            // The first owner ever does not evaluate what was before.
            let position = Position { sequence: last, published_unix_nano: 0 };
            let evaluation = Evaluation::new(id.signal, current, limits, first_order());
            let follow = tools.bus.follow(id.signal.stream(id.number), place(position)).await;
            Started {
                evaluation,
                follow,
                position,
                backlog_end: last,
                generations: Vec::new(),
                noted: VecDeque::new(),
                set_aside: HashSet::new(),
                is_careful: false,
                is_first: true,
            }
        }
        Claim::Snapshot(saved, starts) => {
            let rules =
                reload::load(&tools.store, saved.revision, &current).await.context("load the snapshot's rules")?;
            let evaluation = restore(id, tools, progress, rules, limits, &saved).await?;
            let noted = tools.store.switches(id).await.context("read changes of rules")?;
            let follow = tools.bus.follow(id.signal.stream(id.number), place(saved.position)).await;
            Started {
                evaluation,
                follow,
                position: saved.position,
                backlog_end: last,
                generations: saved.generations,
                noted: noted.into(),
                set_aside: HashSet::new(),
                is_careful: starts > 1,
                is_first: false,
            }
        }
    };
    started.set_aside = set_aside.into_iter().collect();
    progress.alive();
    Ok(Ok(started))
}

/// Behind what was evaluated.
fn place(position: Position) -> From {
    match position.published_unix_nano {
        0 => From::Sequence(position.sequence + 1),
        published => From::After { sequence: position.sequence, published },
    }
}

/// Decisions are numbered by the clock in microseconds where nothing was saved, so that numbers never go back.
fn first_order() -> u64 {
    unix_nano_now() / 1_000
}

/// Reads a snapshot part by part. A part that is damaged is let go: what fires there is found to be over by the levels.
async fn restore(
    id: LaneId,
    tools: &Tools,
    progress: &Progress,
    rules: Arc<RuleSet>,
    limits: Limits,
    lane: &SavedLane,
) -> anyhow::Result<Evaluation> {
    let mut saved = Saved { stream_time: lane.stream_time, order: lane.order, ..Saved::default() };
    for (part, generation) in lane.generations.iter().enumerate().filter(|(_, generation)| **generation != 0) {
        let (kind, number) = if part == PARTS { ("batches", 0) } else { ("subjects", part) };
        let number = i32::try_from(number).context("number a part")?;
        let bytes = tools.store.part(id, kind, number, *generation).await.context("read a part of the snapshot")?;
        progress.alive();
        let reading = tokio::task::spawn_blocking(move || {
            let read = match bytes {
                Some(bytes) if part == PARTS => saved.add_batches(&bytes).map_err(anyhow::Error::from),
                Some(bytes) => saved.add_part(&bytes).map_err(anyhow::Error::from),
                None => Err(anyhow::anyhow!("it is not there")),
            };
            (saved, read)
        });
        let (so_far, read) = reading.await.context("read a part of the snapshot")?;
        saved = so_far;
        if let Err(error) = read {
            tools.metrics.dropped_states.inc();
            tracing::error!(lane = %id, part, error = format!("{error:#}"), "a part of the snapshot is damaged; what was pending or firing there is forgotten");
        }
    }
    let restoring = tokio::task::spawn_blocking(move || Evaluation::restore(id.signal, rules, limits, saved));
    let Restored { evaluation, carried, dropped } = restoring.await.context("restore the snapshot")?;
    tools.metrics.carried_states.inc_by(carried as u64);
    tools.metrics.dropped_states.inc_by(dropped as u64);
    if carried > 0 {
        tracing::error!(lane = %id, carried, "rules of kinds or forms that this version does not know are carried, not evaluated");
    }
    if dropped > 0 {
        tracing::warn!(lane = %id, dropped, "the snapshot names rules that were not in force; their state is let go");
    }
    Ok(evaluation)
}
