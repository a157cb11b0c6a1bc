//! Batches that no gateway has acknowledged yet, on disk.
//!
//! Every batch is written here before it is sent, as one file that holds its id and, for logs, the places in the log
//! files that it reaches to. So after any
//! end of the process the next start knows exactly which lines have a batch id: those are sent again under that id,
//! and no others. Files are
//! renamed into place and not synced: a power cut may lose the last seconds of batches, whose lines are then read
//! from their files again as far as the saved positions allow.
//!
//! The folder is bounded. For want of room the oldest metrics go first; log lines are never dropped, they are refused
//! and stay in their files.

mod batch_id;
mod record;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tokio::sync::watch;

use crate::clock;
use crate::metrics::{Metrics, Reason};
use crate::state;
use crate::tail::positions::{Cover, Positions};
pub use batch_id::BatchId;
use record::Header;

/// Metrics are kept in memory up to this size when the disk takes nothing: a full disk is what they should tell about.
const MEMORY_BYTES: u64 = 8 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    Metrics,
    Logs,
}

impl Signal {
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// Which end of the queue to send from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Oldest,
    Newest,
}

/// Why a batch was not taken. It may be offered again.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the spool is full")]
    Full,
    #[error("cannot write to the spool")]
    Write(#[from] io::Error),
}

/// A batch that was taken out to be sent. It stays in the spool until `done`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub id: BatchId,
    pub items: u64,
    /// How often sending it has failed since this start, for whatever reason.
    pub failures: u32,
    /// How often it failed because a gateway stumbled on it.
    pub stumbles: u32,
    pub payload: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    signal: Signal,
    bytes: u64,
    items: u64,
    failures: u32,
    stumbles: u32,
    /// Somebody is sending it.
    taken: bool,
    /// The payload, where the disk did not take it.
    memory: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: BTreeMap<BatchId, Entry>,
    bytes: u64,
    memory_bytes: u64,
    sequence: u64,
}

#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    max_bytes: u64,
    boot: String,
    queue: Mutex<Queue>,
    changes: watch::Sender<()>,
    positions: Arc<Positions>,
    metrics: Arc<Metrics>,
    _lock: state::Lock,
}

impl Spool {
    /// Takes over what earlier runs left, and tells `positions` how far those batches reach.
    ///
    /// # Errors
    /// The folder cannot be made or listed, or another agent uses it.
    pub fn open(
        folder: &Path,
        max_bytes: u64,
        positions: Arc<Positions>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        state::prepare(folder)?;
        let lock = state::lock(folder)?;
        let mut queue = Queue::default();
        let mut covers = Vec::new();
        for (id, signal, path) in files(folder).with_context(|| format!("list {}", folder.display()))? {
            match record::read_header(&path) {
                Ok((header, bytes)) => {
                    covers.push((header.generation, header.covers));
                    let entry = Entry {
                        signal,
                        bytes,
                        items: header.items,
                        failures: 0,
                        stumbles: 0,
                        taken: false,
                        memory: None,
                    };
                    queue.add(id, entry);
                }
                Err(error) => {
                    tracing::error!(%error, file = %path.display(), "a spooled batch is damaged and dropped");
                    metrics.dropped(signal, Reason::Damaged, 0);
                    let _ = fs::remove_file(&path);
                }
            }
        }
        // File names follow the clock, which may have been set back.
        covers.sort_by_key(|(generation, _)| *generation);
        covers.iter().for_each(|(generation, covers)| positions.apply(*generation, covers));
        let boot = batch_id::random_boot()?;
        let changes = watch::Sender::new(());
        let spool = Self {
            folder: folder.to_owned(),
            max_bytes,
            boot,
            queue: Mutex::new(queue),
            changes,
            positions,
            metrics,
            _lock: lock,
        };
        spool.report(&spool.queue());
        Ok(spool)
    }

    /// Changes whenever a batch comes, goes, or may be taken again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub fn pending(&self, signal: Signal) -> usize {
        self.queue().entries.values().filter(|entry| entry.signal == signal).count()
    }

    /// Takes a batch in and gives it its id. When it returns, `covers` count as read; batches that have some come
    /// from one thread.
    ///
    /// # Errors
    /// There is no room, or the disk does not take it. Metrics are kept in memory in the second case, while they are
    /// few.
    pub fn push(&self, signal: Signal, items: usize, covers: &[Cover], payload: &[u8]) -> Result<BatchId, Refused> {
        let generation = if covers.is_empty() { 0 } else { self.positions.next_generation() };
        let bytes = payload.len() as u64;
        let header = record::header(&Header { items: items as u64, bytes, generation, covers: covers.to_vec() })?;
        let bytes = (header.len() + payload.len()) as u64;
        let id = self.reserve(bytes)?;
        let written = state::replace(&self.path(&id, signal), &[&header, payload]);
        let mut queue = self.queue();
        queue.bytes -= bytes;
        let memory = match written {
            Ok(()) => None,
            Err(error) if signal == Signal::Logs || queue.memory_bytes + bytes > MEMORY_BYTES => {
                self.report(&queue);
                return Err(error.into());
            }
            Err(error) => {
                tracing::warn!(%error, batch = %id, "cannot write metrics to the spool, keeping them in memory");
                Some(payload.to_vec())
            }
        };
        self.positions.apply(generation, covers);
        let entry = Entry { signal, bytes, items: items as u64, failures: 0, stumbles: 0, taken: false, memory };
        queue.add(id.clone(), entry);
        self.report(&queue);
        drop(queue);
        self.changes.send_replace(());
        Ok(id)
    }

    /// Takes out the oldest or the newest batch that nobody is sending, of those made at or after `since`.
    pub fn take(&self, signal: Signal, end: End, since_unix_millis: u64) -> Option<Batch> {
        loop {
            let (mut batch, memory) = {
                let mut queue = self.queue();
                let mut free = queue.entries.iter_mut().filter(|(id, entry)| {
                    entry.signal == signal && !entry.taken && id.created_unix_millis() >= since_unix_millis
                });
                let (id, entry) = match end {
                    End::Oldest => free.next(),
                    End::Newest => free.next_back(),
                }?;
                entry.taken = true;
                let Entry { items, failures, stumbles, .. } = *entry;
                (Batch { id: id.clone(), items, failures, stumbles, payload: Vec::new() }, entry.memory.clone())
            };
            match memory.map_or_else(|| record::read_payload(&self.path(&batch.id, signal)), Ok) {
                Ok(payload) => {
                    batch.payload = payload;
                    return Some(batch);
                }
                Err(error) => {
                    tracing::error!(%error, batch = %batch.id, "a spooled batch cannot be read and is dropped");
                    self.metrics.dropped(signal, Reason::Damaged, batch.items);
                    self.done(&batch.id);
                }
            }
        }
    }

    /// Puts a batch back that could not be sent, and whether that was because a gateway stumbled on it.
    pub fn give_back(&self, id: &BatchId, stumbled: bool) {
        if let Some(entry) = self.queue().entries.get_mut(id) {
            entry.taken = false;
            entry.failures = entry.failures.saturating_add(1);
            entry.stumbles = entry.stumbles.saturating_add(u32::from(stumbled));
        }
        self.changes.send_replace(());
    }

    /// Removes a batch that was acknowledged, or that no gateway will ever take.
    ///
    /// The positions are saved first: were the file gone and the position not, the next start would read its lines
    /// again under another id.
    pub fn done(&self, id: &BatchId) {
        let Some(entry) = self.queue().remove(id) else { return };
        let saved = if entry.signal == Signal::Logs { self.positions.save() } else { Ok(()) };
        let removed = saved.and_then(|()| match entry.memory {
            Some(_) => Ok(()),
            None => fs::remove_file(self.path(id, entry.signal)),
        });
        if let Err(error) = removed {
            tracing::error!(%error, batch = %id, "cannot remove a batch from the spool, the next start sends it again under the same id");
        }
        self.report(&self.queue());
        self.changes.send_replace(());
    }

    fn reserve(&self, bytes: u64) -> Result<BatchId, Refused> {
        let mut queue = self.queue();
        while queue.bytes + bytes > self.max_bytes {
            let oldest = queue.entries.iter().find(|(_, entry)| entry.signal == Signal::Metrics && !entry.taken);
            let Some(id) = oldest.map(|(id, _)| id.clone()) else { return Err(Refused::Full) };
            let Some(entry) = queue.remove(&id) else { return Err(Refused::Full) };
            tracing::warn!(batch = %id, points = entry.items, "the spool is full, its oldest metrics are dropped");
            self.metrics.dropped(Signal::Metrics, Reason::SpoolFull, entry.items);
            if entry.memory.is_none()
                && let Err(error) = fs::remove_file(self.path(&id, Signal::Metrics))
            {
                tracing::error!(%error, batch = %id, "cannot remove a batch from the spool");
            }
        }
        queue.bytes += bytes;
        queue.sequence += 1;
        Ok(BatchId::new(clock::unix_millis(), queue.sequence, &self.boot))
    }

    fn path(&self, id: &BatchId, signal: Signal) -> PathBuf {
        self.folder.join(format!("{}.{}", id.file_stem(), signal.name()))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, queue: &Queue) {
        let count = |signal| queue.entries.values().filter(|entry| entry.signal == signal).count();
        self.metrics.spool(queue.bytes, count(Signal::Metrics), count(Signal::Logs));
    }
}

impl Queue {
    fn add(&mut self, id: BatchId, entry: Entry) {
        self.bytes += entry.bytes;
        if entry.memory.is_some() {
            self.memory_bytes += entry.bytes;
        }
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: &BatchId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.bytes -= entry.bytes;
        if entry.memory.is_some() {
            self.memory_bytes -= entry.bytes;
        }
        Some(entry)
    }
}

/// The batches in the folder, oldest first. Drafts that a crash left behind are removed.
fn files(folder: &Path) -> io::Result<Vec<(BatchId, Signal, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let signal = match path.extension().and_then(|extension| extension.to_str()) {
            Some("metrics") => Signal::Metrics,
            Some("logs") => Signal::Logs,
            Some("tmp") => {
                let _ = fs::remove_file(&path);
                continue;
            }
            _ => continue,
        };
        match BatchId::from_file_stem(stem) {
            Some(id) => found.push((id, signal, path)),
            None => tracing::warn!(file = %path.display(), "a file in the spool has no batch's name and is left alone"),
        }
    }
    found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    Ok(found)
}

#[cfg(test)]
mod tests;
