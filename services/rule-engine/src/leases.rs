//! Shares the shards among the replicas that are there: each takes its part of what is free, hands on what is too much, and
//! renews what it has. A shard that could not be renewed in time is dropped, for somebody else may have it by then.
//!
//! A lease alone says nothing about the work: a shard of which a lane does not come along (the broker is cut off, a message
//! does not end, a snapshot does not load) is given up, and this replica stands back for a while if there are others. One that
//! does not understand all rules hands its shards to those who may, if there are any.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ::store::{Lease, LeaseError};
use anyhow::Context as _;
use bus::Stream;
use lifecycle::CancellationToken;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::shard::{self, Control, Tools};
use crate::signal::Signal;
use crate::store::LaneId;

/// How long a shard stays with a replica that says nothing. What a kill costs, at most, is this and two ticks.
pub const TTL: Duration = Duration::from_secs(4);
const TICK: Duration = Duration::from_millis(500);
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// So that a database that does not answer leaves time to notice that leases ran out.
const TICK_DEADLINE: Duration = Duration::from_secs(2);
/// Whoever gave a shard up lets others try for so long.
const STAND_BACK: Duration = Duration::from_secs(15);
/// A message that takes longer than that is noted, in case that it never ends.
const SLOW: Duration = Duration::from_secs(2);

struct Held {
    lease: Lease,
    control: Control,
    renewed: Instant,
}

struct Keeper {
    replica: Uuid,
    tools: Tools,
    /// A question to the broker on its way, and whether it answered the last.
    probe: JoinSet<bool>,
    broker_answers: bool,
    held: HashMap<u16, Held>,
    owners: JoinSet<u16>,
    /// Leases that go back, beside the ticks: a Postgres that does not answer holds up no renewal.
    releases: JoinSet<()>,
    stands_back_until: Option<Instant>,
    /// It does not understand all rules, and leaves shards to others until then.
    defers_until: Option<Instant>,
    /// Whether the others count this replica.
    takes_part: bool,
}

/// Keeps this replica's shards until the process stops; then hands them on.
///
/// # Errors
/// An owner's task panicked outside of the evaluation.
pub async fn run(tools: Tools, stopping: CancellationToken) -> anyhow::Result<()> {
    let mut keeper = Keeper {
        replica: Uuid::new_v4(),
        tools,
        probe: JoinSet::new(),
        broker_answers: true,
        held: HashMap::new(),
        owners: JoinSet::new(),
        releases: JoinSet::new(),
        stands_back_until: None,
        defers_until: None,
        takes_part: false,
    };
    tracing::info!(replica = %keeper.replica, "taking part in the evaluation");
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = keeper.owners.join_next() => keeper.ended(ended)?,
            Some(_) = keeper.releases.join_next() => {}
            _ = tick.tick() => keeper.tick().await,
        }
    }
    keeper.leave(tick).await
}

impl Keeper {
    async fn tick(&mut self) {
        // Postgres is not waited for beyond the moment at which the first lease runs out.
        let soonest = self.held.values().map(|held| TTL.saturating_sub(held.renewed.elapsed())).min();
        let within = soonest.unwrap_or(TICK_DEADLINE).min(TICK_DEADLINE);
        match tokio::time::timeout(within, self.share()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot keep the leases; trying again"),
            Err(_) => tracing::warn!("the leases could not be kept in time; trying again"),
        }
        self.drop_expired();
        self.show();
    }

    async fn share(&mut self) -> Result<(), sqlx::Error> {
        self.give_up_what_stands_still().await?;
        self.renew().await?;
        if !self.may_take_part().await? {
            if self.takes_part {
                self.tools.store.forget_replica(self.replica).await?;
                self.takes_part = false;
            }
            if self.defers_until.is_some() {
                self.held.values().for_each(|held| held.control.release.cancel());
            }
            return Ok(());
        }
        let replicas = self.tools.store.count_replicas(self.replica, TTL).await?;
        self.takes_part = true;
        let fair = fair_share(self.shards(), replicas);
        let surplus = self.held.len().saturating_sub(fair);
        let mut kept: Vec<&u16> = self.held.keys().collect();
        kept.sort_unstable();
        for number in kept.into_iter().rev().take(surplus) {
            self.held[number].control.release.cancel();
        }
        for number in 0..self.shards() {
            if self.held.len() >= fair {
                break;
            }
            if !self.held.contains_key(&number) {
                self.acquire(number).await?;
            }
        }
        Ok(())
    }

    fn shards(&self) -> u16 {
        self.tools.bus.settings().shards
    }

    /// Not while it could do nothing with a shard; and not soon after it gave one up, if there is anybody else.
    async fn may_take_part(&mut self) -> Result<bool, sqlx::Error> {
        self.ask_the_broker();
        if !self.broker_answers {
            return Ok(false);
        }
        if self.defers().await? {
            return Ok(false);
        }
        if self.stands_back_until.is_some_and(|until| Instant::now() < until)
            && self.tools.store.count_others(self.replica, TTL).await? > 0
        {
            return Ok(false);
        }
        self.stands_back_until = None;
        Ok(true)
    }

    /// Whether shards are left to others, who may understand all rules. Where nobody does, one replica ends up with all of
    /// them: each waits a time of its own before it looks for others again.
    async fn defers(&mut self) -> Result<bool, sqlx::Error> {
        if self.tools.sets.borrow().not_understood() == 0 {
            self.defers_until = None;
            return Ok(false);
        }
        if self.defers_until.is_some_and(|until| Instant::now() < until) {
            return Ok(true);
        }
        if self.tools.store.count_others(self.replica, TTL).await? == 0 {
            self.defers_until = None;
            return Ok(false);
        }
        let (_, own) = self.replica.as_u64_pair();
        self.defers_until = Some(Instant::now() + TTL + Duration::from_millis(own % 4_000));
        Ok(true)
    }

    /// Leases never wait for the broker: its answer counts from the tick on that finds it.
    fn ask_the_broker(&mut self) {
        while let Some(answered) = self.probe.try_join_next() {
            self.broker_answers = answered.unwrap_or(false);
        }
        if self.probe.is_empty() {
            let bus = self.tools.bus.clone();
            self.probe.spawn(async move {
                let asked = tokio::time::timeout(TICK_DEADLINE, bus.progress(Stream::Transitions));
                matches!(asked.await, Ok(Ok(_)))
            });
        }
    }

    /// Gives up shards of which a lane does not come along, and notes messages that take long.
    async fn give_up_what_stands_still(&mut self) -> Result<(), sqlx::Error> {
        let within = self.tools.settings.progress_within;
        for (number, held) in &mut self.held {
            if held.control.lost.is_cancelled() {
                continue;
            }
            for (signal, progress) in Signal::ALL.iter().zip(&held.control.lanes) {
                let lane = LaneId { number: *number, signal: *signal };
                let epoch = held.lease.epoch;
                if let Some(hand) = progress.note_if_slow(SLOW) {
                    let sequence = hand.message.sequence;
                    tracing::warn!(%lane, sequence, "evaluating a message takes long");
                    self.tools.metrics.failed_evaluations.of(["slow"]).inc();
                    self.tools.store.note_attempt(lane, epoch, hand.message, "slow").await?;
                }
                if progress.still_for() >= within {
                    let still = progress.still_for().as_secs();
                    tracing::error!(%lane, epoch, still, "no progress; giving the shard up");
                    self.tools.metrics.given_up_shards.inc();
                    self.stands_back_until = Some(Instant::now() + STAND_BACK);
                    held.control.lost.cancel();
                    break;
                }
            }
        }
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), sqlx::Error> {
        for (number, held) in &mut self.held {
            if held.renewed.elapsed() < RENEW_EVERY || held.control.lost.is_cancelled() {
                continue;
            }
            let asked = Instant::now();
            match held.lease.renew(self.tools.store.work()).await {
                Ok(()) => held.renewed = asked,
                Err(LeaseError::Lost) => {
                    tracing::warn!(shard = number, epoch = held.lease.epoch, "another replica has taken the shard");
                    held.control.lost.cancel();
                }
                Err(LeaseError::Store(error)) => return Err(error),
            }
        }
        Ok(())
    }

    async fn acquire(&mut self, number: u16) -> Result<(), sqlx::Error> {
        let name = format!("shard-{number:02}");
        let asked = Instant::now();
        let Some(lease) = Lease::acquire(self.tools.store.work(), &name, self.replica, TTL).await? else {
            return Ok(());
        };
        let control = Control::new();
        control.lanes.iter().for_each(|lane| lane.saved_ms.store(unix_ms_now(), Ordering::Relaxed));
        let (tools, told, epoch) = (self.tools.clone(), control.clone(), lease.epoch);
        self.owners.spawn(async move {
            shard::own(number, epoch, tools, told).await;
            number
        });
        self.held.insert(number, Held { lease, control, renewed: asked });
        Ok(())
    }

    fn drop_expired(&self) {
        for (number, held) in &self.held {
            if held.renewed.elapsed() >= TTL && !held.control.lost.is_cancelled() {
                tracing::warn!(shard = number, "the lease ran out before it could be renewed");
                held.control.lost.cancel();
            }
        }
    }

    /// An owner ended: its lease goes back, whether it saved or not.
    fn ended(&mut self, ended: Result<u16, tokio::task::JoinError>) -> anyhow::Result<()> {
        let number = ended.context("evaluate a shard")?;
        if let Some(Held { lease, .. }) = self.held.remove(&number) {
            let store = self.tools.store.clone();
            self.releases.spawn(async move {
                let released = tokio::time::timeout(TICK_DEADLINE, lease.release(store.work())).await;
                if !matches!(released, Ok(Ok(()))) {
                    tracing::warn!(shard = number, "cannot give the lease back; it will run out by itself");
                }
            });
        }
        self.show();
        Ok(())
    }

    /// Hands on everything; leases are renewed while owners save.
    async fn leave(mut self, mut tick: tokio::time::Interval) -> anyhow::Result<()> {
        // First, so that the others count themselves without this one when the shards become free.
        let forgotten = tokio::time::timeout(TICK_DEADLINE, self.tools.store.forget_replica(self.replica)).await;
        if !matches!(forgotten, Ok(Ok(()))) {
            tracing::warn!("cannot leave the list of replicas; the others will notice");
        }
        self.held.values().for_each(|held| held.control.release.cancel());
        while !self.owners.is_empty() {
            tokio::select! {
                Some(ended) = self.owners.join_next() => self.ended(ended)?,
                _ = tick.tick() => {
                    let renewed = tokio::time::timeout(TICK_DEADLINE, self.renew()).await;
                    if !matches!(renewed, Ok(Ok(()))) {
                        tracing::warn!("cannot renew leases while stopping");
                    }
                    self.drop_expired();
                }
            }
        }
        while self.releases.join_next().await.is_some() {}
        Ok(())
    }

    fn show(&self) {
        let metrics = &self.tools.metrics;
        metrics.owned_shards.set(i64::try_from(self.held.len()).unwrap_or(i64::MAX));
        let lanes = self.held.values().flat_map(|held| &held.control.lanes);
        let oldest = lanes.map(|lane| lane.saved_ms.load(Ordering::Relaxed)).min();
        let age = oldest.map_or(0, |saved| unix_ms_now().saturating_sub(saved));
        metrics.snapshot_age.set(Duration::from_millis(age).as_secs_f64());
    }
}

/// The most shards that one of `replicas` takes.
fn fair_share(shards: u16, replicas: u16) -> usize {
    usize::from(shards.div_ceil(replicas.max(1)))
}

fn unix_ms_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok().and_then(|now| u64::try_from(now.as_millis()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::fair_share;

    #[test]
    fn the_shares_of_all_replicas_cover_all_shards() {
        for (shards, replicas, share) in [(2, 1, 2), (2, 2, 1), (16, 3, 6), (2, 5, 1), (4, 0, 4)] {
            assert_eq!(fair_share(shards, replicas), share);
            assert!(share * usize::from(replicas.max(1)) >= usize::from(shards));
        }
    }
}
