//! Judges, every second, who is there: one replica by lease, by the heartbeats in Redis.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use lifecycle::{CancellationToken, Ready};
use store::Lease;
use uuid::Uuid;

use crate::heartbeats::Heartbeats;
use crate::metrics::Metrics;
use crate::presence::{Grace, Nanos, Thresholds, nanos};
use crate::relay::Bell;
use crate::store::{Store, Unfenced};

const LEASE: &str = "sweeper";
/// How soon another replica takes over from one that was killed.
const LEASE_TTL: Duration = Duration::from_secs(5);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Heartbeats this much older than the longest silence that matters are read as well.
const MARGIN: Duration = Duration::from_secs(10);
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// Judges who is there.
pub struct Sweeper {
    pub store: Store,
    pub heartbeats: Heartbeats,
    pub thresholds: Thresholds,
    pub metrics: Metrics,
    pub bell: Bell,
    /// Follows Redis, on replicas that only wait as well.
    pub redis: Ready,
    /// This process among the replicas.
    pub owner: Uuid,
}

/// What the replica that judges remembers between sweeps. A new one begins with nothing.
struct Term {
    lease: Lease,
    /// Put into Redis: when it is missing there, Redis has lost its memory.
    mark: Uuid,
    grace: Grace,
    last: Option<Nanos>,
    tidied: Option<Instant>,
}

impl Sweeper {
    /// Until the process stops.
    ///
    /// # Errors
    /// None: while Redis or Postgres is away every status stays as it is.
    pub async fn run(mut self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(SWEEP_EVERY.min(self.thresholds.idle_after / 4));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut term, mut failing) = (None, false);
        while stopping.run_until_cancelled(every.tick()).await.is_some() {
            match self.turn(&mut term).await {
                Ok(()) => failing = false,
                Err(error) if failing => tracing::debug!(error = format!("{error:#}"), "still cannot judge"),
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "cannot judge who is there; every status stays as it is"
                    );
                    failing = true;
                }
            }
        }
        if let Some(Term { lease, .. }) = term {
            // Whoever comes next need not wait; if this fails, the lease ends by itself.
            let _ = lease.release(self.store.pool()).await;
        }
        Ok(())
    }

    async fn turn(&mut self, term: &mut Option<Term>) -> anyhow::Result<()> {
        let began = Instant::now();
        let now = match self.heartbeats.now().await {
            Ok(now) => {
                self.redis.up();
                now
            }
            Err(error) => {
                self.redis.down("Redis cannot be reached; every status stays as it is");
                return Err(error);
            }
        };
        let lease = Lease::acquire(self.store.pool(), LEASE, self.owner, LEASE_TTL).await.context("take the lease")?;
        *term = lease.map(|lease| continued(term.take(), lease));
        self.metrics.leading.set(i64::from(term.is_some()));
        let Some(current) = term else { return Ok(()) };
        match self.sweep(current, now).await {
            Ok(()) => self.metrics.sweep_seconds.observe(began.elapsed().as_secs_f64()),
            Err(error) => {
                if matches!(error.downcast_ref(), Some(Unfenced::Lost)) {
                    *term = None;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn sweep(&mut self, term: &mut Term, now: Nanos) -> anyhow::Result<()> {
        let tenants = self.store.tenants().await.context("list tenants")?;
        let oldest = self.thresholds.offline_from(now).saturating_sub(nanos(MARGIN));
        // Once, the last signs of life of those that went silent while nobody judged.
        let since = if term.last.is_some() { oldest } else { 0 };
        let snapshot = self.heartbeats.read(&tenants, since, term.mark).await?;
        // After so long a pause, heartbeats may be missing that nobody could leave.
        let pause = nanos(self.thresholds.idle_after / 2);
        let paused = term.last.is_none_or(|last| now < last || now - last > pause);
        if snapshot.forgotten || paused {
            if snapshot.forgotten && term.last.is_some() {
                tracing::warn!("Redis has lost its memory; nothing is judged to be gone for a while");
            }
            term.grace.begin(now, self.thresholds.idle_after);
        }
        let (thresholds, grace) = (self.thresholds, term.grace);
        let believe =
            |judged: &crate::store::Judged| grace.judge(judged.before, thresholds.status(judged.seen, now), now);
        let changes = self.store.judge(&term.lease, &snapshot.beats, thresholds, now, believe).await?;
        term.last = Some(now);
        self.metrics.heartbeats.set(i64::try_from(snapshot.beats.len()).unwrap_or(i64::MAX));
        for change in &changes {
            self.metrics.change(*change);
            self.bell.ring();
        }
        self.tidy(term, &tenants, now).await
    }

    /// What need not be done every second.
    async fn tidy(&mut self, term: &mut Term, tenants: &[String], now: Nanos) -> anyhow::Result<()> {
        if term.tidied.is_some_and(|last| last.elapsed() < TIDY_EVERY) {
            return Ok(());
        }
        term.tidied = Some(Instant::now());
        self.heartbeats.forget_old(tenants, now).await
    }
}

fn continued(before: Option<Term>, lease: Lease) -> Term {
    match before {
        Some(term) if term.lease.epoch == lease.epoch => Term { lease, ..term },
        _ => {
            tracing::info!(epoch = lease.epoch, "this replica judges who is there");
            Term { lease, mark: Uuid::new_v4(), grace: Grace::default(), last: None, tidied: None }
        }
    }
}
