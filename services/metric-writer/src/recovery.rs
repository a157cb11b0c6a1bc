//! Notices that the store is another process than before, and has written again what the one before may have lost.
//!
//! VictoriaMetrics answers a write before it is on disk; a killed one loses up to 10 s of answered samples (5 s until rows
//! become a part in memory, 5 s until that is flushed). The streams keep what was stored, so it can be read again.
//!
//! Where to begin is a sequence, not a time of publishing: a writer that works off a backlog stores old messages now. Each
//! look notes for every shard up to where everything had been answered; after a restart the notes of [`MARGIN`] before the
//! store was last seen alive say what is certainly on its disk. It ends with what had been delivered to any writer
//! when the restart was noticed, since only that can have been answered.
//!
//! One replica watches for all of them: it holds a claim, and another takes over when it falls silent. With the claim it
//! leaves, at each note, which process of the store it has seen to and what is certain of it, so that whoever comes next does
//! not do so again, and trusts nothing that is not on the disk yet. Who meets a process of which nothing was left takes the
//! notes of `marks` in the store, which is marked when it has lived for [`MARGIN`]. A store without any mark is new or was emptied, and gets all that the streams still hold. What remains
//! uncovered: a store that starts twice within one second, which its start time cannot tell.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bus::{Bus, Claim, Stream};
use lifecycle::{CancellationToken, Ready};
use model::Times;
use tracing::{debug, info, warn};

use crate::known::{Known, MARGIN};
use crate::metrics::Metrics;
use crate::replay::Replay;
use crate::store::{DROPPED, Status, Store};
use crate::{SERVICE, marks};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Once in how long it is said aloud that the store drops something.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// An envelope that only a newer version can read may wait for hours; a suspect is put aside after a few deliveries.
const ANSWERED_WITHIN: Duration = Duration::from_secs(180);
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// Keeps watch over the store.
pub(crate) struct Recovery {
    pub(crate) bus: Bus,
    pub(crate) store: Store,
    pub(crate) replay: Replay,
    pub(crate) metrics: Metrics,
    pub(crate) times: Times,
    pub(crate) ready: Ready,
    pub(crate) stopping: CancellationToken,
}

/// What a replica remembers from look to look.
#[derive(Default)]
struct Memory {
    /// Only of who holds the claim.
    known: Option<Known>,
    /// What the store had said about itself.
    status: Option<Status>,
    said: Option<Instant>,
}

impl Recovery {
    /// Looks once a second, until the process stops.
    pub(crate) async fn watch(self) -> anyhow::Result<()> {
        let mut memory = Memory::default();
        let mut claim = self.bus.claim(SERVICE, "store");
        let watch = async {
            loop {
                match self.look(&mut memory, &mut claim).await {
                    Ok(()) => self.ready.up(),
                    Err(error) => self.ready.down(format!("{error:#}")),
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        self.stopping.run_until_cancelled(Box::pin(watch)).await.unwrap_or(());
        if tokio::time::timeout(RELEASE_WITHIN, claim.release()).await.is_err() {
            debug!("another replica takes over when it sees that this one is silent");
        }
        Ok(())
    }

    async fn look(&self, memory: &mut Memory, claim: &mut Claim) -> anyhow::Result<()> {
        // Also while the store is away: who has watched it knows best what it may have lost.
        let holds = claim.hold().await;
        let status = self.store.status().await?;
        let started = status.started;
        self.listen(memory, status);
        let holds = holds.context("ask who watches the store")?;
        self.metrics.watching.set(i64::from(holds));
        let Some(start) = started else {
            debug!("the store does not say when it started, so a restart of it cannot be noticed");
            return Ok(());
        };
        if !holds {
            memory.known = None;
            return Ok(());
        }
        match &mut memory.known {
            Some(known) if known.is(start) => self.again(known, start, claim).await,
            known => self.meet(known, start, claim).await,
        }
    }

    /// Counts what the store dropped since the last look, and says what of it does not go with our settings.
    fn listen(&self, memory: &mut Memory, status: Status) {
        let before = memory.status.take();
        let is_same = before.as_ref().is_some_and(|before| before.started == status.started);
        if !is_same {
            status.complaints(self.times).iter().for_each(|complaint| warn!("{complaint}"));
        }
        // What a store counted before it was first seen may be of another year.
        if let Some(before) = before.filter(|_| is_same) {
            let mut dropped = 0;
            for (place, (_, reason)) in DROPPED.iter().enumerate() {
                let more = status.dropped[place].saturating_sub(before.dropped[place]);
                self.metrics.store_dropped.of([reason]).inc_by(more);
                dropped += more;
            }
            if dropped > 0 && memory.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                memory.said = Some(Instant::now());
                warn!(
                    dropped,
                    "the metrics store drops rows or labels; sightline_metric_writer_store_dropped_total says why"
                );
            }
        }
        memory.status = Some(status);
    }

    /// The store that is known already.
    async fn again(&self, known: &mut Known, start: f64, claim: &mut Claim) -> anyhow::Result<()> {
        known.seen();
        if known.wants_note() {
            let stored = self.progress(|progress| progress.stored).await?;
            if known.is_settled() {
                marks::answered(&self.store, self.namespace(), start, &stored).await?;
            }
            known.note(stored);
            leave(known, claim).await;
        }
        Ok(())
    }

    /// Another store than before, or the first that this replica has to see to.
    async fn meet(&self, known: &mut Option<Known>, start: f64, claim: &mut Claim) -> anyhow::Result<()> {
        let certain = match known.as_ref() {
            Some(known) => {
                if !known.is_unfinished() {
                    self.metrics.store_restarts.inc();
                }
                known.certain()
            }
            None => match self.taken_over(start, claim).await? {
                Ok(taken_over) => {
                    leave(known.insert(taken_over), claim).await;
                    return Ok(());
                }
                Err(certain) => certain,
            },
        };
        // What has to be written again is no reason to stop writing.
        self.ready.up();
        // Kept before the work begins: when the store restarts again meanwhile, the same is to be done once more.
        *known = Some(Known::unfinished(certain.clone()));
        let ends = self.progress(|progress| progress.delivered).await?;
        let work = async {
            self.answered(&ends).await?;
            let samples = self.replay.run(&certain, &ends).await;
            samples.context("write again what a restart of the store may have lost")
        };
        tokio::select! {
            samples = work => {
                let samples = samples?;
                if samples > 0 {
                    info!(samples, "the store is another process than before: wrote again what it may have lost");
                }
            }
            () = lost(claim) => {
                info!("another replica sees to the store");
                *known = None;
                return Ok(());
            }
        }
        leave(known.insert(Known::new(start, certain)), claim).await;
        Ok(())
    }

    /// The store, where some writer has seen to this very process of it; else what is certain to be on its disk.
    async fn taken_over(&self, start: f64, claim: &Claim) -> anyhow::Result<Result<Known, Vec<u64>>> {
        if let Some(known) = Known::taken_over(start, claim.left()) {
            return Ok(Ok(known));
        }
        let shards = self.bus.settings().shards;
        let newest = marks::newest(&self.store, self.namespace()).await.context("look for notes in the store")?;
        let Some(mark) = newest else { return Ok(Err(vec![0; usize::from(shards)])) };
        let at = mark.at - MARGIN.as_secs_f64();
        let certain = marks::stored(&self.store, self.namespace(), shards, at).await?;
        let is_this = mark.store_start.total_cmp(&start).is_eq();
        Ok(if is_this { Ok(Known::new(start, certain)) } else { Err(certain) })
    }

    /// Waits until all up to `ends` has been answered for, or put aside: what may end its readers is found out by those who
    /// acknowledge it, and must not end whoever writes it again.
    async fn answered(&self, ends: &[u64]) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < ANSWERED_WITHIN {
            let stored = self.progress(|progress| progress.stored).await?;
            if stored.iter().zip(ends).all(|(stored, end)| stored >= end) {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn progress(&self, of: impl Fn(bus::Progress) -> u64) -> anyhow::Result<Vec<u64>> {
        let mut all = Vec::new();
        for shard in 0..self.bus.settings().shards {
            all.push(of(self.bus.progress(Stream::Metrics(shard)).await?));
        }
        Ok(all)
    }

    fn namespace(&self) -> &str {
        &self.bus.settings().namespace
    }
}

/// Leaves with the claim what the next watcher has to know.
async fn leave(known: &Known, claim: &mut Claim) {
    if let Some(left) = known.left() {
        claim.leave(left).await;
    }
}

/// Keeps a claim; returns when another replica has it.
async fn lost(claim: &mut Claim) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // While the broker is away nobody else can take it either.
        if let Ok(false) = claim.hold().await {
            return;
        }
    }
}
