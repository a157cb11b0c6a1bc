//! Requests that no gateway has acknowledged yet, on disk.
//!
//! Every request is written here before it is sent, as one file that holds its batch id and, for logs, the places in the
//! log files that it reaches to. So after any
//! end of the process the next start knows exactly which lines have a batch id: those are sent again under that id,
//! and no others. Files are
//! renamed into place and not synced: a power cut may lose the last seconds of them, whose lines are then read
//! from their files again as far as the saved positions allow.
//!
//! The folder is bounded. For want of room the oldest metrics go first; log lines are never dropped, they are refused
//! and stay in their files, also when they have three quarters of the room. What an agent of another version left here and this one cannot read stays where it is.

mod batch_id;
mod queue;
mod record;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::watch;

use crate::clock;
use crate::metrics::{Metrics, Reason, gauge};
use crate::positions::{Cover, Positions};
use crate::signal::Signal;
use crate::state;
pub use batch_id::BatchId;
pub use queue::{End, Reaction};
use queue::{Entry, Queue};
use record::{Header, Unreadable};

/// Why a request was not taken. It may be offered again.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the spool is full")]
    Full,
    #[error("cannot write to the spool")]
    Write(#[from] io::Error),
}

/// The part of the room that logs leave to metrics: one over this. Otherwise a noisy log would cost an outage's metrics.
const METRICS_SHARE: u64 = 4;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub bytes: u64,
    /// Metrics are kept in memory up to this size when the disk takes nothing: a full disk is what they should tell about.
    pub memory_bytes: u64,
}

/// A request that was taken out to be sent. It stays in the spool until `done`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    pub id: BatchId,
    pub items: u64,
    /// How often sending it has failed since this start, for whatever reason.
    pub failures: u32,
    /// How often a gateway stumbled on it while others took the like.
    pub stumbles: u32,
    pub payload: Bytes,
}

#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    room: Room,
    boot: String,
    queue: Mutex<Queue>,
    changes: watch::Sender<()>,
    positions: Arc<Positions>,
    metrics: Metrics,
    _lock: state::Lock,
}

impl Spool {
    /// Takes over what earlier runs left, and tells `positions` how far those requests reach.
    ///
    /// # Errors
    /// The folder cannot be made or listed, or another agent uses it.
    pub fn open(folder: &Path, room: Room, positions: Arc<Positions>, metrics: Metrics) -> anyhow::Result<Self> {
        state::prepare(folder)?;
        let lock = state::lock(folder)?;
        let mut queue = Queue::default();
        let mut covers = Vec::new();
        let mut unknown = 0;
        for (id, signal, path) in files(folder).with_context(|| format!("list {}", folder.display()))? {
            match record::read(&path) {
                Ok((header, _)) => {
                    covers.push((header.generation, header.covers));
                    let bytes = fs::metadata(&path).map_or(header.bytes, |metadata| metadata.len());
                    queue.add(id, Entry::new(signal, on_disk(bytes), header.items));
                }
                Err(error @ Unreadable::Damaged(_)) => {
                    tracing::error!(%error, file = %path.display(), "a spooled request is damaged and dropped");
                    metrics.items_dropped.of([signal.as_str(), Reason::Damaged.as_str()]).inc();
                    let _ = fs::remove_file(&path);
                }
                Err(error) => {
                    tracing::warn!(%error, file = %path.display(), "a spooled request cannot be read and is left alone");
                    unknown += 1;
                    covers.extend(record::covers(&path));
                }
            }
        }
        // File names follow the clock, which may have been set back.
        covers.sort_by_key(|(generation, _)| *generation);
        covers.iter().for_each(|(generation, covers)| positions.apply(*generation, covers));
        metrics.spool_unknown.set(unknown);
        let boot = batch_id::random_boot()?;
        let changes = watch::Sender::new(());
        let (folder, queue) = (folder.to_owned(), Mutex::new(queue));
        let spool = Self { folder, room, boot, queue, changes, positions, metrics, _lock: lock };
        spool.report(&spool.queue());
        Ok(spool)
    }

    /// Changes whenever a request comes, goes, or may be taken again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub fn pending(&self, signal: Signal) -> usize {
        self.queue().count(signal)
    }

    /// Takes a request in and gives it its batch id. When it returns, `covers` count as read; requests that have some
    /// come from one thread.
    ///
    /// # Errors
    /// There is no room, or the disk does not take it. Metrics are kept in memory in the second case, while they are
    /// few.
    pub fn push(&self, signal: Signal, items: usize, covers: &[Cover], payload: &[u8]) -> Result<BatchId, Refused> {
        let generation = if covers.is_empty() { 0 } else { self.positions.next_generation() };
        let items = items as u64;
        let header = Header::of(payload, items, generation, covers).encode()?;
        let bytes = on_disk((header.len() + payload.len()) as u64);
        let id = self.reserve(signal, bytes)?;
        let written = state::replace(&self.path(&id, signal), &[&header, payload]);
        let mut queue = self.queue();
        queue.bytes -= bytes;
        let memory = match written {
            Ok(()) => None,
            Err(error) if signal == Signal::Logs || queue.memory_bytes + bytes > self.room.memory_bytes => {
                self.report(&queue);
                return Err(error.into());
            }
            Err(error) => {
                tracing::warn!(%error, batch = %id, "cannot write metrics to the spool, keeping them in memory");
                Some(Bytes::copy_from_slice(payload))
            }
        };
        self.positions.apply(generation, covers);
        let mut entry = Entry::new(signal, bytes, items);
        entry.memory = memory;
        queue.add(id.clone(), entry);
        self.report(&queue);
        drop(queue);
        self.changes.send_replace(());
        Ok(id)
    }

    /// Takes out the oldest or the newest request that nobody is sending, of those made at or after `since`.
    pub fn take(&self, signal: Signal, end: End, since_unix_millis: u64) -> Option<Spooled> {
        loop {
            let (mut spooled, memory) = {
                let mut queue = self.queue();
                let (id, entry) = queue.take(signal, end, since_unix_millis)?;
                let Entry { items, failures, stumbles, .. } = *entry;
                (Spooled { id, items, failures, stumbles, payload: Bytes::new() }, entry.memory.clone())
            };
            let read = || record::read(&self.path(&spooled.id, signal)).map(|(_, payload)| payload.into());
            match memory.map_or_else(read, Ok) {
                Ok(payload) => {
                    spooled.payload = payload;
                    return Some(spooled);
                }
                Err(error) if is_lost(&error) => {
                    tracing::error!(%error, batch = %spooled.id, "a spooled request cannot be read and is dropped");
                    self.metrics.items_dropped.of([signal.as_str(), Reason::Damaged.as_str()]).inc_by(spooled.items);
                    self.done(&spooled.id);
                }
                Err(error) => {
                    tracing::error!(%error, batch = %spooled.id, "a spooled request cannot be read now, it is tried again later");
                    self.queue().put_aside(&spooled.id);
                }
            }
        }
    }

    /// Puts a request back that could not be sent.
    pub fn give_back(&self, id: &BatchId, reaction: Reaction) {
        self.queue().give_back(id, reaction);
        self.changes.send_replace(());
    }

    /// A gateway took a request in.
    pub fn acknowledged(&self, id: &BatchId) {
        self.queue().acknowledged();
        self.done(id);
    }

    /// Removes a request that was acknowledged, or that no gateway will ever take.
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
            tracing::error!(%error, batch = %id, "cannot remove a request from the spool, the next start sends it again under the same id");
        }
        self.report(&self.queue());
        self.changes.send_replace(());
    }

    fn reserve(&self, signal: Signal, bytes: u64) -> Result<BatchId, Refused> {
        let mut queue = self.queue();
        if signal == Signal::Logs && queue.log_bytes + bytes > self.room.bytes - self.room.bytes / METRICS_SHARE {
            return Err(Refused::Full);
        }
        while queue.bytes + bytes > self.room.bytes {
            let id = queue.oldest_metrics().ok_or(Refused::Full)?;
            let entry = queue.remove(&id).ok_or(Refused::Full)?;
            tracing::warn!(batch = %id, points = entry.items, "the spool is full, its oldest metrics are dropped");
            let labels = [Signal::Metrics.as_str(), Reason::SpoolFull.as_str()];
            self.metrics.items_dropped.of(labels).inc_by(entry.items);
            if entry.memory.is_none()
                && let Err(error) = fs::remove_file(self.path(&id, Signal::Metrics))
            {
                tracing::error!(%error, batch = %id, "cannot remove a request from the spool");
            }
        }
        queue.bytes += bytes;
        queue.sequence += 1;
        Ok(BatchId::new(clock::unix_millis(), queue.sequence, &self.boot))
    }

    fn path(&self, id: &BatchId, signal: Signal) -> PathBuf {
        self.folder.join(format!("{}.{}", id.file_stem(), signal.as_str()))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, queue: &Queue) {
        self.metrics.spool.set(gauge(queue.bytes));
        for signal in [Signal::Metrics, Signal::Logs] {
            self.metrics.spool_requests.of([signal.as_str()]).set(gauge(queue.count(signal) as u64));
        }
    }
}

/// A file takes whole blocks: many small ones would fill a disk long before their bytes do.
fn on_disk(bytes: u64) -> u64 {
    const BLOCK_BYTES: u64 = 4096;
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// The disk may give it another time, unless it is damaged or somebody removed it.
fn is_lost(error: &Unreadable) -> bool {
    match error {
        Unreadable::Damaged(_) => true,
        Unreadable::Io(error) => error.kind() == io::ErrorKind::NotFound,
        Unreadable::Newer(_) => false,
    }
}

/// The requests in the folder, oldest first. Drafts that a crash left behind are removed.
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
