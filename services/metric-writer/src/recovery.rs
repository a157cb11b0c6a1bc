//! Notices that the store is another process than before, and writes again what the one before may have lost.
//!
//! VictoriaMetrics answers a write before it is on disk; a killed one loses up to 10 s of answered samples (5 s until rows
//! become a part in memory, 5 s until that is flushed). The streams keep what was stored, so it can be read again.
//!
//! Where to begin is a sequence, not a time of publishing: a writer that works off a backlog stores old messages now. Each
//! look notes for every shard up to where everything had been answered; after a restart the notes of [`MARGIN`] before the
//! store was last seen alive say what is certainly on its disk. It ends with what had been delivered to any writer
//! when the restart was noticed, since only that can have been answered.
//!
//! A process that has just started has no notes of its own and takes those that `marks` left in the store. A store is
//! marked only after it has lived for [`MARGIN`] after its recovery. So whoever finds the present store unmarked repeats
//! the recovery, at worst for nothing; a store without any mark gets all that the streams still hold. What remains
//! uncovered: a store that starts twice within one second, which its start time cannot tell.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bus::{Bus, Delivery, From, Stream};
use lifecycle::{CancellationToken, Ready};
use series::Reader;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::intake;
use crate::metrics::Metrics;
use crate::samples::Samples;
use crate::store::{Store, WriteError};
use crate::{marks, remote_write};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const NOTE_EVERY: Duration = Duration::from_secs(5);
/// Three times what the store can lose.
const MARGIN: Duration = Duration::from_secs(30);
/// How long a stream may be silent before its end is looked up again.
const SILENCE: Duration = Duration::from_secs(5);
const MOST_SILENCES: u32 = 6;
/// Less than a writer uses, since it runs beside one.
const REMEMBERED: usize = 8 << 20;
const ENOUGH_SAMPLES: usize = 25_000;

/// Keeps watch over the store.
pub(crate) struct Recovery {
    pub(crate) bus: Bus,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) ready: Ready,
    pub(crate) stopping: CancellationToken,
}

/// Up to where, in each shard, everything had been answered at a time.
#[derive(Debug, Clone)]
struct Note {
    at: Instant,
    stored: Vec<u64>,
}

/// The store as it was seen last.
struct Known {
    start: f64,
    since: Instant,
    alive: Instant,
    notes: VecDeque<Note>,
}

impl Known {
    fn new(start: f64, stored: Vec<u64>) -> Self {
        let now = Instant::now();
        Self { start, since: now, alive: now, notes: VecDeque::from([Note { at: now, stored }]) }
    }

    fn note(&mut self, stored: Vec<u64>) {
        self.notes.push_back(Note { at: self.alive, stored });
        // One note older than the margin is enough.
        while self.notes.get(1).is_some_and(|second| self.alive.duration_since(second.at) >= MARGIN) {
            self.notes.pop_front();
        }
    }

    /// What is on the store's disk for certain: the oldest note, which is as old as the margin where there is one.
    fn certain(&self) -> Vec<u64> {
        self.notes.front().map(|note| note.stored.clone()).unwrap_or_default()
    }

    fn wants_note(&self) -> bool {
        self.notes.back().is_none_or(|note| note.at.elapsed() >= NOTE_EVERY)
    }
}

impl Recovery {
    /// Looks once a second, until the process stops.
    pub(crate) async fn watch(self) -> anyhow::Result<()> {
        let mut known = None;
        let stopping = self.stopping.clone();
        let watch = async {
            loop {
                match self.look(&mut known).await {
                    Ok(()) => self.ready.up(),
                    Err(error) => self.ready.down(format!("{error:#}")),
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = stopping.cancelled() => Ok(()),
            () = watch => Ok(()),
        }
    }

    async fn look(&self, known: &mut Option<Known>) -> anyhow::Result<()> {
        let Some(start) = self.store.started().await? else {
            debug!("the store does not say when it started, so a restart of it cannot be noticed");
            return Ok(());
        };
        let is_same = known.as_ref().is_some_and(|known| known.start.total_cmp(&start).is_eq());
        if !is_same {
            return self.meet(known, start).await;
        }
        let Some(known) = known else { return Ok(()) };
        known.alive = Instant::now();
        if known.wants_note() {
            let stored = self.progress(|progress| progress.stored).await?;
            if known.since.elapsed() >= MARGIN {
                self.mark(known.start, &stored).await?;
            }
            known.note(stored);
        }
        Ok(())
    }

    /// Another store than before, or the first that this process sees.
    async fn meet(&self, known: &mut Option<Known>, start: f64) -> anyhow::Result<()> {
        let certain = match known.as_ref() {
            Some(known) => {
                // Not a number while a recovery is being repeated.
                if !known.start.is_nan() {
                    self.metrics.store_restarts.inc();
                }
                Some(known.certain())
            }
            None => self.certain_by_marks(start).await?,
        };
        let Some(certain) = certain else {
            let stored = self.progress(|progress| progress.stored).await?;
            *known = Some(Known::new(start, stored));
            return Ok(());
        };
        // Kept before the work begins: when the store restarts again meanwhile, the same is to be done once more.
        *known = Some(Known::new(start, certain.clone()));
        let ends = self.progress(|progress| progress.delivered).await?;
        // What has to be written again is no reason to stop writing.
        self.ready.up();
        let mut samples = 0;
        for shard in 0..self.bus.settings().shards {
            let index = usize::from(shard);
            let (after, end) = (certain.get(index).copied().unwrap_or(0), ends.get(index).copied().unwrap_or(0));
            match self.replay(shard, after, end).await {
                Ok(written) => samples += written,
                Err(error) => {
                    // Nothing is known again, but for what `certain` says.
                    *known = Some(Known::new(f64::NAN, certain));
                    return Err(error.context("write again what a restart of the store may have lost"));
                }
            }
        }
        if samples > 0 {
            info!(samples, "the store is another process than before: wrote again what it may have lost");
        }
        if let Some(known) = known {
            (known.since, known.alive) = (Instant::now(), Instant::now());
            known.notes.iter_mut().for_each(|note| note.at = known.alive);
        }
        Ok(())
    }

    /// What the store's own notes say is on its disk; `None` when some writer has seen to this very store.
    async fn certain_by_marks(&self, start: f64) -> anyhow::Result<Option<Vec<u64>>> {
        let settings = self.bus.settings();
        let newest = marks::newest(&self.store, &settings.namespace, unix_now().as_secs_f64()).await;
        match newest.context("look for notes in the store")? {
            Some(mark) if mark.store_start.total_cmp(&start).is_eq() => Ok(None),
            Some(mark) => {
                let at = mark.at - MARGIN.as_secs_f64();
                marks::stored(&self.store, &settings.namespace, settings.shards, at).await.map(Some)
            }
            None => Ok(Some(vec![0; usize::from(settings.shards)])),
        }
    }

    async fn mark(&self, start: f64, stored: &[u64]) -> anyhow::Result<()> {
        let time_ms = i64::try_from(unix_now().as_millis()).unwrap_or(i64::MAX);
        let samples = marks::samples(&self.bus.settings().namespace, start, stored, time_ms);
        for body in remote_write::bodies(&samples)? {
            self.store.write(body).await.context("leave a note in the store")?;
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

    /// Writes the messages behind `after` and up to `end` again; says how many samples that were.
    async fn replay(&self, shard: u16, after: u64, end: u64) -> anyhow::Result<u64> {
        if after >= end {
            return Ok(0);
        }
        let stream = Stream::Metrics(shard);
        info!(%stream, after, end, "writing again what the store may have lost");
        let mut follow = self.bus.follow(stream, From::Sequence(after + 1)).await;
        let (mut reader, mut chunk, mut written) = (Reader::new(REMEMBERED), Chunk::default(), 0);
        let (mut at, mut expected, mut silences) = (after, after + 1, 0);
        while at < end {
            let Ok(delivery) = timeout(SILENCE, follow.next()).await else {
                silences += 1;
                // The stream may have lost its end meanwhile, or somebody purged it.
                if self.bus.progress(stream).await?.last <= at || silences == MOST_SILENCES {
                    warn!(%stream, at, end, "the stream ends before what the store may have lost");
                    break;
                }
                continue;
            };
            silences = 0;
            at = delivery.stream_sequence();
            if at > expected {
                warn!(%stream, messages = at - expected, "the stream no longer keeps all of what the store may have lost");
            }
            expected = at + 1;
            if at <= end {
                match intake::read(&mut reader, &delivery, &mut chunk.samples) {
                    Ok(_) => chunk.deliveries.push(delivery),
                    Err(_) => debug!(%stream, at, "what cannot be read is a dead letter already, or will be one"),
                }
            }
            if chunk.samples.len() >= ENOUGH_SAMPLES {
                written += self.rewrite(std::mem::take(&mut chunk)).await?;
            }
        }
        written += self.rewrite(chunk).await?;
        Ok(written)
    }

    /// Writes a chunk whole or, where the store refuses it, envelope by envelope: those that it refused the first time were
    /// never stored, their neighbours were.
    async fn rewrite(&self, chunk: Chunk) -> anyhow::Result<u64> {
        if self.write(&chunk.samples).await? {
            return Ok(self.written(&chunk.samples));
        }
        let (mut reader, mut written) = (Reader::new(REMEMBERED), 0);
        for delivery in &chunk.deliveries {
            let mut samples = Samples::default();
            if intake::read(&mut reader, delivery, &mut samples).is_ok() && self.write(&samples).await? {
                written += self.written(&samples);
            }
        }
        Ok(written)
    }

    /// False when the store refuses them.
    async fn write(&self, samples: &Samples) -> anyhow::Result<bool> {
        for body in remote_write::bodies(samples)? {
            match self.store.write(body).await {
                Ok(()) => {}
                Err(error @ WriteError::Refused { .. }) => {
                    warn!(%error, "the store refuses samples that are written again");
                    return Ok(false);
                }
                Err(error @ WriteError::Away(_)) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn written(&self, samples: &Samples) -> u64 {
        let count = u64::try_from(samples.len()).unwrap_or(u64::MAX);
        self.metrics.replayed_samples.inc_by(count);
        count
    }
}

/// Envelopes that are written again together.
#[derive(Default)]
struct Chunk {
    deliveries: Vec<Delivery>,
    samples: Samples,
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_certain_is_as_old_as_the_margin() {
        let mut known = Known::new(1.0, vec![1]);
        let begun = known.alive;
        for seconds in 1..=12_u64 {
            known.alive = begun + NOTE_EVERY * u32::try_from(seconds).expect("small");
            known.note(vec![seconds + 1]);
        }
        // Notes are 5 s apart and the newest is 60 s old, number 13.
        assert_eq!(known.certain(), vec![7]);
        assert!(known.notes.len() <= 8);
    }

    #[test]
    fn a_store_that_was_just_met_has_only_its_first_note() {
        let mut known = Known::new(1.0, vec![40]);
        known.alive += NOTE_EVERY;
        known.note(vec![90]);
        assert_eq!(known.certain(), vec![40]);
    }
}
