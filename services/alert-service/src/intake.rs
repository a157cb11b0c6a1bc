//! Takes transitions in: one transaction for what lies ready, in the order of the stream.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::store::Pools;
use sqlx::PgConnection;

use crate::alert::{self, Alert, Outcome, Predecessor, Verdict};
use crate::changes::{Cause, Changes};
use crate::fence::Fence;
use crate::store::{fences, transitions};
use crate::transition::Transition;

/// A transition and where it stood in the stream.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The transition.
    pub transition: Transition,
    /// Its place in the stream.
    pub sequence: u64,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// What became of one transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is applied.
    Applied(Outcome),
    /// It was applied before.
    Repeated,
    /// It comes back after so long: the one before it has not come.
    Waits(Duration),
    /// It must never be applied.
    Refused(String),
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Of each transition, in their order.
    pub fates: Vec<Fate>,
    /// Whether the outbox has something now.
    pub told: bool,
}

/// How long a transition waits for the one before it, by the pauses between looks for that, and by the clock: how long it lay
/// in the stream says nothing, nor how long nobody could look, nor that replicas looked one right after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// At the most.
    pub most: Duration,
    /// Everything up to this place in the stream is answered. What stands right behind has nothing to wait for but what is
    /// published after it, and does so for [`BEHIND`] alone: what comes before was pruned, buried, or never here.
    pub answered: u64,
}

/// How long a transition waits for one before it that was published after it.
pub const BEHIND: Duration = Duration::from_secs(2);

/// After the first look for the one before it; after each further one a little longer, up to so many times as long.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST: u32 = 8;

/// What a transition pauses after so many looks.
fn pause(looks: u32) -> Duration {
    PAUSE * looks.clamp(1, LONGEST)
}

/// How long it has waited.
fn waited(waited: transitions::Waited) -> Duration {
    let looks = waited.looks;
    let paused = (1..=looks.min(LONGEST)).map(pause).sum::<Duration>() + pause(LONGEST) * looks.saturating_sub(LONGEST);
    paused.min(waited.since)
}

impl Patience {
    /// Waits for whatever may come, for `most`.
    #[must_use]
    pub const fn of(most: Duration) -> Self {
        Self { most, answered: 0 }
    }

    fn is_over(self, sequence: u64, waited: Duration) -> bool {
        waited >= self.most || waited >= BEHIND && sequence <= self.answered.saturating_add(1)
    }
}

/// Applies `batch` in one transaction; on an error nothing of it is applied. A transition that names one before it waits
/// for that with `patience`.
///
/// # Errors
/// Postgres.
pub async fn take(pools: &Pools, batch: &[Incoming], patience: Patience) -> sqlx::Result<Taken> {
    pools
        .bounded(async {
            let mut transaction = pools.work.begin().await?;
            let taken = take_in(&mut transaction, batch, patience).await?;
            transaction.commit().await?;
            Ok(taken)
        })
        .await
}

async fn take_in(connection: &mut PgConnection, batch: &[Incoming], patience: Patience) -> sqlx::Result<Taken> {
    let mut desk = Desk::open(connection, batch, patience).await?;
    // A redelivery stands among what came behind it in the stream.
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|index| batch[*index].sequence);
    let mut fates = vec![Fate::Repeated; batch.len()];
    for index in order {
        fates[index] = desk.take(&batch[index]);
    }
    let told = desk.close(connection).await?;
    Ok(Taken { fates, told })
}

/// Everything that a batch is decided by, loaded at once, and what comes of it.
struct Desk<'a> {
    fences: BTreeMap<String, Fence>,
    taken: BTreeSet<String>,
    waiting: BTreeMap<String, transitions::Waited>,
    patience: Patience,
    changes: Changes,
    records: Vec<transitions::Record<'a>>,
    to_wait: Vec<(&'a str, &'a str)>,
}

impl<'a> Desk<'a> {
    /// Locks are taken in the order that every transaction of this service keeps: shards, then alerts, each sorted.
    async fn open(connection: &mut PgConnection, batch: &'a [Incoming], patience: Patience) -> sqlx::Result<Self> {
        let wires = || batch.iter().map(|incoming| &incoming.transition.wire);
        let shards: BTreeSet<String> = wires().map(|wire| wire.shard.clone()).collect();
        let fences = fences::lock(connection, &shards.into_iter().collect::<Vec<_>>()).await?;
        let alerts: BTreeSet<String> = batch.iter().map(|incoming| alert_of(&incoming.transition)).collect();
        let changes = Changes::begin(connection, &alerts.into_iter().collect::<Vec<_>>()).await?;
        let named = wires().map(|wire| wire.previous.as_str()).filter(|id| !id.is_empty());
        let ids: Vec<&str> = wires().map(|wire| wire.id.as_str()).collect();
        let taken = transitions::taken(connection, &named.chain(ids.iter().copied()).collect::<Vec<_>>()).await?;
        let waiting = transitions::waiting(connection, &ids).await?;
        Ok(Self { fences, taken, waiting, patience, changes, records: Vec::new(), to_wait: Vec::new() })
    }

    fn take(&mut self, incoming: &'a Incoming) -> Fate {
        let wire = &incoming.transition.wire;
        let alert_id = alert_of(&incoming.transition);
        // What fires may do so for longer than is remembered what was taken.
        let is_newest = |alert: &Alert| alert.place.transition_id == wire.id;
        if self.taken.contains(&wire.id) || self.changes.alert(&alert_id).is_some_and(is_newest) {
            return self.take_again(incoming, &alert_id);
        }
        let fence = self.fences.get(&wire.shard).copied();
        if let Some(fence) = fence.filter(|fence| !fence.admits(wire.epoch, incoming.sequence)) {
            return Fate::Refused(format!(
                "epoch {} of shard {} ended: epoch {} was heard before",
                wire.epoch, wire.shard, fence.epoch
            ));
        }
        let verdict = alert::decide(self.changes.alert(&alert_id), &incoming.transition, self.predecessor(incoming));
        let Verdict::Change(change) = verdict else {
            self.to_wait.push((&wire.id, &wire.previous));
            return Fate::Waits(pause(self.waiting.get(&wire.id).map_or(1, |waited| waited.looks + 1)));
        };
        if let Some(raised) = Fence::raised(fence, wire.epoch, incoming.sequence) {
            self.fences.insert(wire.shard.clone(), raised);
        }
        let outcome = change.outcome;
        let traceparent = incoming.traceparent.as_deref();
        let cause = Cause { id: &wire.id, received: wire.received_unix_nano, traceparent };
        let notification_id = self.changes.apply(*change, cause);
        self.taken.insert(wire.id.clone());
        let (transition, sequence) = (&incoming.transition, incoming.sequence);
        self.records.push(transitions::Record { transition, sequence, alert_id, outcome, notification_id });
        Fate::Applied(outcome)
    }

    /// A repeat says at the most how its rule shows by now.
    fn take_again(&mut self, incoming: &'a Incoming, alert_id: &str) -> Fate {
        let wire = &incoming.transition.wire;
        let fence = self.fences.get(&wire.shard);
        let is_heard = fence.is_none_or(|fence| fence.admits(wire.epoch, incoming.sequence));
        let alert = self.changes.alert(alert_id).filter(|_| is_heard);
        let Some(change) = alert.and_then(|alert| alert::present(alert, &incoming.transition, self.changes.now()))
        else {
            return Fate::Repeated;
        };
        let outcome = change.outcome;
        let cause = format!("shown/{}/{}", wire.id, wire.rule_version);
        self.changes.apply(change, Cause { id: &cause, received: 0, traceparent: None });
        Fate::Applied(outcome)
    }

    fn predecessor(&self, incoming: &Incoming) -> Predecessor {
        let wire = &incoming.transition.wire;
        let id = alert::alert_id(&wire.tenant, &wire.rule_id, &wire.series);
        let newest = self.changes.alert(&id).map(|alert| alert.place.transition_id.as_str());
        if wire.previous.is_empty() || self.taken.contains(&wire.previous) || newest == Some(wire.previous.as_str()) {
            return Predecessor::Known;
        }
        match self.waiting.get(&wire.id) {
            Some(since) if self.patience.is_over(incoming.sequence, waited(*since)) => Predecessor::GivenUp,
            _ => Predecessor::Missing,
        }
    }

    async fn close(self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        if !self.to_wait.is_empty() {
            transitions::wait(connection, &self.to_wait).await?;
        }
        if !self.records.is_empty() {
            fences::raise(connection, &self.fences).await?;
            transitions::record(connection, &self.records).await?;
        }
        self.changes.write(connection).await
    }
}

fn alert_of(transition: &Transition) -> String {
    let wire = &transition.wire;
    alert::alert_id(&wire.tenant, &wire.rule_id, &wire.series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_long_for_what_cannot_come_any_more() {
        let patience = Patience { most: Duration::from_secs(20), answered: 99 };
        let is_over = |sequence, seconds| patience.is_over(sequence, Duration::from_secs(seconds));
        assert!(is_over(100, 2) && is_over(50, 2), "all before it is answered");
        assert!(!is_over(100, 1), "it may have overtaken the one before it");
        assert!(!is_over(101, 19) && is_over(101, 20), "something before it is under way");
    }
}
