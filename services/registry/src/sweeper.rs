//! Judges, every second, who is there: one replica by lease, by the signs of life in Redis.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lifecycle::{CancellationToken, Ready};
use store::Lease;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::config::Settings;
use crate::heartbeats::{Heartbeats, Snapshot};
use crate::metrics::Metrics;
use crate::presence::{Nanos, Status, nanos};
use crate::roster::{Key, Roster, Verdict};
use crate::store::{Retention, Settled, Store, Unfenced};

const LEASE: &str = "sweeper";
/// How soon another replica takes over from one that was killed.
const LEASE_TTL: Duration = Duration::from_secs(5);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A heartbeat's time is asked for before it is written: one may appear this much later than its time.
const LATE_BY: Duration = Duration::from_secs(3);
/// Verdicts of one transaction.
const AT_ONCE: usize = 1_000;
/// What is known here is compared with the store's this often, and what need not be done every second is done.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// Judges who is there.
pub struct Sweeper {
    pub store: Store,
    pub heartbeats: Heartbeats,
    pub settings: Settings,
    pub metrics: Metrics,
    /// Told when there is something to publish.
    pub wake: Arc<Notify>,
    /// Follows Redis, on replicas that only wait as well.
    pub redis: Ready,
    /// This process among the replicas.
    pub owner: Uuid,
    /// Redis did not answer since it was last judged here, or another replica was seen to judge: gateways could not leave
    /// heartbeats either.
    pub redis_was_away: bool,
}

/// What the replica that judges remembers between sweeps. A new one begins with what the store has.
struct Term {
    lease: Lease,
    /// Put into Redis: when it is missing there, Redis has lost its memory.
    mark: Uuid,
    roster: Roster,
    last: Option<Nanos>,
    /// No gateway is there to hear anybody.
    deaf: bool,
    tidied: Option<Instant>,
}

impl Sweeper {
    /// Until the process stops.
    ///
    /// # Errors
    /// None: while Redis or Postgres is away every status stays as it is.
    pub async fn run(mut self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(SWEEP_EVERY.min(self.settings.idle_after / 4));
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
            self.store.release(lease).await;
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
                self.redis_was_away = true;
                return Err(error);
            }
        };
        *term = self.hold(term.take()).await?;
        self.metrics.leading.set(i64::from(term.is_some()));
        let Some(current) = term else {
            self.metrics.forget();
            self.redis_was_away = false;
            return Ok(());
        };
        match self.sweep(current, now).await {
            Ok(()) => self.metrics.sweep.observe(began.elapsed().as_secs_f64()),
            Err(error) => {
                if matches!(error.downcast_ref(), Some(Unfenced::Lost)) {
                    *term = None;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The term that goes on, or a new one; none while another replica judges.
    async fn hold(&self, term: Option<Term>) -> anyhow::Result<Option<Term>> {
        if let Some(term) = term {
            match self.store.renew(&term.lease).await {
                Ok(()) => return Ok(Some(term)),
                Err(Unfenced::Lost) => tracing::info!("another replica judges who is there"),
                Err(Unfenced::Store(error)) => return Err(error).context("renew the lease"),
            }
        }
        let lease = self.store.acquire(LEASE, self.owner, LEASE_TTL).await.context("take the lease")?;
        Ok(lease.map(|lease| {
            tracing::info!(epoch = lease.epoch, "this replica judges who is there");
            let roster = Roster::new(self.settings.thresholds());
            Term { lease, mark: Uuid::new_v4(), roster, last: None, deaf: false, tidied: None }
        }))
    }

    async fn sweep(&mut self, term: &mut Term, now: Nanos) -> anyhow::Result<()> {
        let tenants = self.store.tenants().await.context("list tenants")?;
        if term.tidied.is_none_or(|last| last.elapsed() >= TIDY_EVERY.min(self.settings.offline_after / 2)) {
            self.tidy(term, &tenants, now).await?;
        }
        // The first time, the last signs of life of those as well who went silent while nobody judged.
        let since = term.last.map_or(0, |last| last - nanos(LATE_BY));
        let snapshot = match self.heartbeats.read(&tenants, since, term.mark).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.redis_was_away = true;
                return Err(error);
            }
        };
        self.metrics.heartbeats.set(i64::try_from(snapshot.beats.len()).unwrap_or(i64::MAX));
        self.hear(term, &snapshot, now).await?;
        self.excuse(term, &snapshot, now);
        let silent = if term.deaf { Vec::new() } else { self.silent(&mut term.roster, now).await? };
        let verdicts = term.roster.verdicts(&silent, now);
        for verdicts in verdicts.chunks(AT_ONCE) {
            self.write(term, verdicts, now).await?;
            // All of a site may change at once, which takes longer than the lease lasts.
            self.store.renew(&term.lease).await?;
        }
        term.last = Some(now);
        Ok(())
    }

    /// Takes signs of life in; those of whom nothing is known here are looked up.
    async fn hear(&self, term: &mut Term, snapshot: &Snapshot, now: Nanos) -> anyhow::Result<()> {
        let mut strangers = HashSet::new();
        for (key, seen) in &snapshot.beats {
            // One from the future counts as one of now, lest a wrong clock keep a resource online for hours after.
            if !term.roster.hear(key, (*seen).min(now)) {
                strangers.insert(key.clone());
            }
        }
        let strangers: Vec<Key> = strangers.into_iter().collect();
        for some in strangers.chunks(AT_ONCE) {
            for (key, known) in self.store.known(some).await.context("look up who was heard")? {
                term.roster.enter(key, known);
            }
        }
        if !strangers.is_empty() {
            for (key, seen) in &snapshot.beats {
                term.roster.hear(key, (*seen).min(now));
            }
            term.roster.forget_unheard(&strangers);
        }
        Ok(())
    }

    /// Silence proves nothing where nobody could hear or write down what was said.
    fn excuse(&mut self, term: &mut Term, snapshot: &Snapshot, now: Nanos) {
        let heard = snapshot.beats.iter().map(|(_, seen)| *seen).max();
        // Gateways of an older release leave heartbeats of resources only.
        let there = snapshot.gateway.max(heard);
        let deaf = snapshot.gateway.is_some()
            && there.is_some_and(|there| now - there > nanos(self.settings.gateways_away_after));
        if deaf != term.deaf {
            let text =
                if deaf { "no gateway is there; nobody is judged to be silent" } else { "gateways are there again" };
            tracing::warn!("{text}");
        }
        self.metrics.deaf.set(i64::from(deaf));
        let forgotten =
            snapshot.mark.as_deref().is_none_or(|mark| term.last.is_some() && mark != term.mark.to_string());
        if forgotten || std::mem::take(&mut self.redis_was_away) || (term.deaf && !deaf) {
            tracing::warn!(forgotten, "signs of life may be missing; everybody has their time again to be heard");
            term.roster.forgive(now, |own| own);
        } else if term.last.is_none() {
            // What the replica before us had heard and not written down is on its way at most.
            term.roster.forgive(now, |own| own.min(nanos(self.settings.idle_after)));
        }
        term.deaf = deaf;
    }

    /// Who is silent for too long, after a last look for a sign of life.
    async fn silent(&self, roster: &mut Roster, now: Nanos) -> anyhow::Result<Vec<Key>> {
        let mut silent = roster.overdue(now);
        silent.sort_unstable();
        let last = self.heartbeats.last(&silent).await?;
        for (key, seen) in silent.iter().zip(last) {
            if let Some(seen) = seen {
                roster.hear(key, seen.min(now));
            }
        }
        Ok(silent)
    }

    async fn write(&self, term: &mut Term, verdicts: &[Verdict], now: Nanos) -> anyhow::Result<()> {
        let settled = self.store.judge(&term.lease, verdicts, now).await?;
        for (verdict, settled) in verdicts.iter().zip(settled) {
            match settled {
                Settled::Changed(change) => {
                    term.roster.settle(verdict);
                    self.metrics.changes.of([change.as_str()]).inc();
                    self.wake.notify_one();
                }
                Settled::Same => term.roster.settle(verdict),
                Settled::NotOurs => term.roster.forget(&verdict.key),
            }
        }
        Ok(())
    }

    /// Compares what is known here with what the store has, writes down what was learned, and forgets what is long gone.
    async fn tidy(&self, term: &mut Term, tenants: &[Arc<str>], now: Nanos) -> anyhow::Result<()> {
        let learned = term.roster.learned();
        for some in learned.chunks(AT_ONCE) {
            self.store.learn(some).await.context("write down how often resources report")?;
            term.roster.saved(some);
        }
        let roster = &mut term.roster;
        self.store.present(|key, known| roster.enter(key, known)).await.context("read who is there")?;
        self.heartbeats.forget_old(tenants, now).await?;
        let before = |keep: Duration| now.saturating_sub(nanos(keep));
        let retention = Retention {
            short_lived: before(self.settings.short_lived_retention),
            others: before(self.settings.resource_retention),
        };
        let forgotten = self.store.forget(&term.lease, retention, now).await?;
        if forgotten > 0 {
            self.metrics.changes.of(["forgotten"]).inc_by(u64::try_from(forgotten).unwrap_or_default());
            self.wake.notify_one();
        }
        let counts = self.store.count().await.context("count resources")?;
        for status in Status::ALL {
            self.metrics.resources.of([status.as_str()]).set(counts.get(&status).copied().unwrap_or_default());
        }
        term.tidied = Some(Instant::now());
        Ok(())
    }
}
