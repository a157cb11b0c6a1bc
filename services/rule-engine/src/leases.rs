//! Shares the shards among the replicas that are there: each takes its part of what is free, hands on what is too much,
//! and renews what it has. A shard that could not be renewed in time is dropped, for somebody else may have it by then.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ::store::{Lease, LeaseError};
use anyhow::Context as _;
use lifecycle::CancellationToken;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::shard::{self, Control, Tools};

/// How long a shard stays with a replica that says nothing. What a kill costs, at most, is this and two ticks.
pub const TTL: Duration = Duration::from_secs(4);
const TICK: Duration = Duration::from_millis(500);
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// So that a database that does not answer leaves time to notice that leases ran out.
const TICK_DEADLINE: Duration = Duration::from_secs(2);

struct Held {
    lease: Lease,
    control: Control,
    renewed: Instant,
}

struct Keeper {
    replica: Uuid,
    tools: Tools,
    held: HashMap<u16, Held>,
    owners: JoinSet<u16>,
}

/// Keeps this replica's shards until the process stops; then hands them on.
///
/// # Errors
/// The evaluation of a shard panicked.
pub async fn run(tools: Tools, stopping: CancellationToken) -> anyhow::Result<()> {
    let mut keeper = Keeper { replica: Uuid::new_v4(), tools, held: HashMap::new(), owners: JoinSet::new() };
    tracing::info!(replica = %keeper.replica, "taking part in the evaluation");
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = keeper.owners.join_next() => keeper.ended(ended).await?,
            _ = tick.tick() => keeper.tick().await,
        }
    }
    keeper.leave(tick).await
}

impl Keeper {
    async fn tick(&mut self) {
        match tokio::time::timeout(TICK_DEADLINE, self.share()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot keep the leases; trying again"),
            Err(_) => tracing::warn!("the leases could not be kept in time; trying again"),
        }
        self.drop_expired();
        self.show();
    }

    async fn share(&mut self) -> Result<(), sqlx::Error> {
        self.renew().await?;
        let replicas = self.tools.store.count_replicas(self.replica, TTL).await?;
        let fair = fair_share(self.tools.bus.settings().shards, replicas);
        let surplus = self.held.len().saturating_sub(fair);
        let mut kept: Vec<&u16> = self.held.keys().collect();
        kept.sort_unstable();
        for number in kept.into_iter().rev().take(surplus) {
            self.held[number].control.release.cancel();
        }
        for number in 0..self.tools.bus.settings().shards {
            if self.held.len() >= fair {
                break;
            }
            if !self.held.contains_key(&number) {
                self.acquire(number).await?;
            }
        }
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), sqlx::Error> {
        for (number, held) in &mut self.held {
            if held.renewed.elapsed() < RENEW_EVERY {
                continue;
            }
            let asked = Instant::now();
            match held.lease.renew(self.tools.store.pool()).await {
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
        let Some(lease) = Lease::acquire(self.tools.store.pool(), &name, self.replica, TTL).await? else {
            return Ok(());
        };
        let control = Control::default();
        control.saved_ms.store(unix_ms_now(), Ordering::Relaxed);
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
    async fn ended(&mut self, ended: Result<u16, tokio::task::JoinError>) -> anyhow::Result<()> {
        let number = ended.context("evaluate a shard")?;
        if let Some(held) = self.held.remove(&number) {
            let released = tokio::time::timeout(TICK_DEADLINE, held.lease.release(self.tools.store.pool())).await;
            if !matches!(released, Ok(Ok(()))) {
                tracing::warn!(shard = number, "cannot give the lease back; it will run out by itself");
            }
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
                Some(ended) = self.owners.join_next() => self.ended(ended).await?,
                _ = tick.tick() => {
                    let renewed = tokio::time::timeout(TICK_DEADLINE, self.renew()).await;
                    if !matches!(renewed, Ok(Ok(()))) {
                        tracing::warn!("cannot renew leases while stopping");
                    }
                    self.drop_expired();
                }
            }
        }
        Ok(())
    }

    fn show(&self) {
        let metrics = &self.tools.metrics;
        metrics.owned_shards.set(i64::try_from(self.held.len()).unwrap_or(i64::MAX));
        let oldest = self.held.values().map(|held| held.control.saved_ms.load(Ordering::Relaxed)).min();
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
