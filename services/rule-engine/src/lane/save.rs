//! What an owner keeps for the next: snapshots, written beside the evaluation.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Ended, Lane, RETRY, unix_nano_now};
use crate::evaluation::PARTS;
use crate::metrics::Metrics;
use crate::saved::{Damaged, Snapshot};
use crate::store::{Fenced, LaneId, Position, SavedLane, Store};

/// The least time between snapshots. One that takes long to make is made more seldom.
const SAVE_EVERY: Duration = Duration::from_secs(2);
const SAVE_SHARE: u32 = 10;
/// Where the generation of the batches stands.
const BATCHES: usize = PARTS;

/// Why a snapshot was not saved.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("a newer owner has the lane")]
    Fenced,
    #[error("Postgres")]
    Store(#[from] sqlx::Error),
    #[error("it could not be read again")]
    Unwritable(#[from] Damaged),
    #[error("writing it panicked")]
    Panicked,
}

impl From<Fenced> for Failed {
    fn from(_: Fenced) -> Self {
        Self::Fenced
    }
}

/// How saving ended: the generations of the new snapshot, or the parts that are still to be saved.
pub(super) type Saved = Result<Vec<i64>, (Failed, Vec<usize>)>;

/// Saves one snapshot at a time.
pub(super) struct Saver {
    id: LaneId,
    epoch: i64,
    generations: Vec<i64>,
    /// Snapshots that this owner has begun.
    count: i64,
    running: JoinSet<Saved>,
    begun: Instant,
    next: Instant,
}

/// Everything that writing one takes.
struct Job {
    id: LaneId,
    epoch: i64,
    store: Store,
    metrics: Metrics,
    snapshot: Snapshot,
    position: Position,
    generations: Vec<i64>,
    generation: i64,
}

impl Saver {
    /// Goes on from the generations of the snapshot that was found.
    pub(super) fn new(id: LaneId, epoch: i64, mut generations: Vec<i64>) -> Self {
        generations.resize(PARTS + 1, 0);
        let now = Instant::now();
        Self { id, epoch, generations, count: 0, running: JoinSet::new(), begun: now, next: now + SAVE_EVERY }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Resolves when a snapshot that was begun has ended; never while none is. Cancelling is safe.
    pub(super) async fn ended(&mut self) -> Saved {
        match self.running.join_next().await {
            Some(ended) => ended.unwrap_or_else(|_| Err((Failed::Panicked, (0..PARTS).collect()))),
            None => std::future::pending().await,
        }
    }
}

impl Lane {
    pub(super) fn begin_save(&mut self) {
        let snapshot = self.with(|evaluation| evaluation.snapshot());
        let saver = &mut self.saver;
        saver.begun = Instant::now();
        saver.count += 1;
        let job = Job {
            id: saver.id,
            epoch: saver.epoch,
            store: self.tools.store.clone(),
            metrics: self.tools.metrics.clone(),
            snapshot,
            position: self.position,
            generations: saver.generations.clone(),
            // Never one that another owner, or this one before, may have written parts under.
            generation: saver.epoch.saturating_mul(1 << 32).saturating_add(saver.count),
        };
        saver.running.spawn(job.run());
    }

    /// Whether the snapshot was saved.
    pub(super) fn saved(&mut self, saved: Saved) -> Result<bool, Ended> {
        self.saver.next = Instant::now() + SAVE_EVERY.max(self.saver.begun.elapsed() * SAVE_SHARE);
        match saved {
            Ok(generations) => {
                self.saver.generations = generations;
                self.progress.saved_ms.store(unix_nano_now() / 1_000_000, Ordering::Relaxed);
                // Whatever ended owners before, it lies behind us.
                self.is_careful = false;
                Ok(true)
            }
            Err((Failed::Fenced, _)) => Err(Ended::Fenced),
            Err((error, parts)) => {
                if matches!(error, Failed::Unwritable(_)) {
                    self.tools.metrics.unwritable_snapshots.inc();
                }
                tracing::warn!(lane = %self.id, error = format!("{:#}", anyhow::Error::from(error)), "cannot save the snapshot; trying again");
                self.with(|evaluation| evaluation.unsaved(&parts));
                Ok(false)
            }
        }
    }

    /// Saves once more before the lane is handed on.
    pub(super) async fn leave(&mut self) -> Result<(), Ended> {
        while !self.waiting.is_idle() {
            self.waiting.begin(&self.publisher);
            self.waiting.said().await?;
        }
        if !self.saver.is_idle() {
            let saved = self.saver.ended().await;
            self.saved(saved)?;
        }
        for _ in 0..3 {
            self.begin_save();
            let saved = self.saver.ended().await;
            if self.saved(saved)? {
                return Ok(());
            }
            tokio::time::sleep(RETRY).await;
        }
        Err(Ended::Unsaved)
    }
}

impl Job {
    async fn run(self) -> Saved {
        let parts = self.snapshot.changed();
        self.write().await.map_err(|error| (error, parts))
    }

    async fn write(self) -> Result<Vec<i64>, Failed> {
        let Self { id, epoch, store, metrics, snapshot, position, mut generations, generation } = self;
        let header = (snapshot.revision, snapshot.stream_time, snapshot.order);
        let packing =
            tokio::task::spawn_blocking(move || Ok::<_, Damaged>((snapshot.write()?, snapshot.write_batches()?)));
        let (written, batches) = packing.await.map_err(|_| Failed::Panicked)??;
        let mut bytes = 0;
        for one in written {
            let is_empty = one.bytes.is_empty();
            bytes += one.bytes.len();
            if !is_empty {
                let part = i32::try_from(one.part).unwrap_or(i32::MAX);
                store.put_part(id, epoch, ("subjects", part, generation), &one.bytes).await??;
            }
            if let Some(place) = generations.get_mut(one.part) {
                *place = if is_empty { 0 } else { generation };
            }
        }
        if let Some(batches) = batches {
            bytes += batches.len();
            store.put_part(id, epoch, ("batches", 0, generation), &batches).await??;
            if let Some(place) = generations.get_mut(BATCHES) {
                *place = generation;
            }
        }
        let (revision, stream_time, order) = header;
        let lane = SavedLane { revision, position, stream_time, order, generations: generations.clone() };
        store.save(id, epoch, &lane).await??;
        observe(&metrics, bytes);
        Ok(generations)
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes stay far below 2^53")]
fn observe(metrics: &Metrics, bytes: usize) {
    metrics.snapshot_size.observe(bytes as f64);
}
