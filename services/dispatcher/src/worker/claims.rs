//! What this process has claimed, and until when it may believe so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::store::Pools;
use tokio::time::{Instant, MissedTickBehavior};

use crate::store::claiming::{self, Claimer};

/// How long claims of a dead process hold others back, and how often a living one renews them.
pub const LEASE: Duration = Duration::from_secs(5);
const RENEWAL: Duration = Duration::from_secs(1);

/// How much earlier than everybody else we take a claim for run out: clocks differ in speed, and a connection takes its time
/// to break.
const MARGIN: Duration = Duration::from_secs(1);

/// Claims by delivery. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Claims(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Claims {
    /// A claim that was asked for at `asked`.
    pub fn hold(&self, id: &str, asked: Instant) {
        self.with(|claims| claims.insert(id.to_owned(), asked + LEASE - MARGIN));
    }

    /// A claim that is needed no more.
    pub fn drop(&self, id: &str) {
        self.with(|claims| claims.remove(id));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.with(|claims| claims.len())
    }

    /// Waits until the claim can no longer be relied on: another process may send the same delivery, and what stands behind
    /// it, so that one must not be told any more.
    pub async fn until_run_out(&self, id: &str) {
        while let Some(until) = self.with(|claims| claims.get(id).copied()).filter(|until| *until > Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Renews for ever, beside everything else: no claim runs out because something else is slow.
    pub async fn renew(self, pools: Pools, claimer: Claimer) {
        let mut renewal = tokio::time::interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            renewal.tick().await;
            let ids: Vec<String> = self.with(|claims| claims.keys().cloned().collect());
            if ids.is_empty() {
                continue;
            }
            let asked = Instant::now();
            let renewed = claiming::renew(&pools.work, &claimer, &ids);
            match tokio::time::timeout(LEASE, renewed).await {
                Ok(Ok(renewed)) => self.with(|claims| prolong(claims, &renewed, asked)),
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew claims; what is under way will be cut off"),
                Err(_) => tracing::warn!("Postgres is silent; what is under way will be cut off"),
            }
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Instant>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One that was taken over, or is over, is not prolonged.
fn prolong(claims: &mut BTreeMap<String, Instant>, renewed: &[(String, Duration)], asked: Instant) {
    for (id, held) in renewed {
        if let Some(until) = claims.get_mut(id) {
            *until = asked + held.saturating_sub(MARGIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_is_not_renewed_runs_out_before_others_may_take_it() {
        let (claims, begun) = (Claims::default(), Instant::now());
        claims.hold("kept", begun);
        claims.hold("lost", begun);
        let renewed = claims.clone();
        let renewals = async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            renewed.with(|claims| prolong(claims, &[("kept".to_owned(), LEASE)], Instant::now()));
        };
        let of = async |id| {
            claims.until_run_out(id).await;
            begun.elapsed()
        };
        let (lost, kept, ()) = tokio::join!(of("lost"), of("kept"), renewals);
        assert_eq!((lost, kept), (LEASE - MARGIN, Duration::from_secs(3) + LEASE - MARGIN));
        claims.drop("kept");
        claims.until_run_out("kept").await;
    }
}
