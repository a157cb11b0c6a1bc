//! What waits in the spool, oldest first.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::batch_id::BatchId;
use crate::signal::Signal;

/// Which end of the queue to send from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Oldest,
    Newest,
}

/// What became of an attempt to send that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// It had nothing to do with the request.
    Failed,
    /// A gateway stumbled, perhaps on this very request.
    Stumbled,
}

#[derive(Debug)]
pub struct Entry {
    pub signal: Signal,
    pub bytes: u64,
    pub items: u64,
    /// How often sending it has failed since this start, for whatever reason.
    pub failures: u32,
    /// How often a gateway stumbled on it while it took others.
    pub stumbles: u32,
    /// What the gateways had taken when one stumbled on it last.
    stumbled_at: Option<u64>,
    /// Somebody is sending it.
    taken: bool,
    /// The disk does not give it now.
    aside: bool,
    /// The payload, where the disk did not take it.
    pub memory: Option<Bytes>,
}

impl Entry {
    pub fn new(signal: Signal, bytes: u64, items: u64) -> Self {
        Self {
            signal,
            bytes,
            items,
            failures: 0,
            stumbles: 0,
            stumbled_at: None,
            taken: false,
            aside: false,
            memory: None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Queue {
    pub entries: BTreeMap<BatchId, Entry>,
    pub bytes: u64,
    pub memory_bytes: u64,
    pub log_bytes: u64,
    pub sequence: u64,
    /// How many requests gateways have taken.
    taken_by_gateways: u64,
}

impl Queue {
    pub fn add(&mut self, id: BatchId, entry: Entry) {
        self.bytes += entry.bytes;
        if entry.signal == Signal::Logs {
            self.log_bytes += entry.bytes;
        }
        if entry.memory.is_some() {
            self.memory_bytes += entry.bytes;
        }
        self.entries.insert(id, entry);
    }

    pub fn remove(&mut self, id: &BatchId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.bytes -= entry.bytes;
        if entry.signal == Signal::Logs {
            self.log_bytes -= entry.bytes;
        }
        if entry.memory.is_some() {
            self.memory_bytes -= entry.bytes;
        }
        Some(entry)
    }

    /// A gateway took one: things go well, and what was put aside is worth another try.
    pub fn acknowledged(&mut self) {
        self.taken_by_gateways += 1;
        self.entries.values_mut().for_each(|entry| entry.aside = false);
    }

    pub fn put_aside(&mut self, id: &BatchId) {
        if let Some(entry) = self.entries.get_mut(id) {
            (entry.taken, entry.aside) = (false, true);
        }
    }

    /// The oldest metrics that nobody sends.
    pub fn oldest_metrics(&self) -> Option<BatchId> {
        let free = |entry: &Entry| entry.signal == Signal::Metrics && !entry.taken;
        self.entries.iter().find(|(_, entry)| free(entry)).map(|(id, _)| id.clone())
    }

    pub fn count(&self, signal: Signal) -> usize {
        self.entries.values().filter(|entry| entry.signal == signal).count()
    }

    /// Marks the next of `signal` that nobody sends as taken. `since`: no older ones than that.
    pub fn take(&mut self, signal: Signal, end: End, since_unix_millis: u64) -> Option<(BatchId, &mut Entry)> {
        let free = |(_, entry): &(&BatchId, &mut Entry)| entry.signal == signal && !entry.taken && !entry.aside;
        let (id, entry) = match end {
            End::Oldest => self.entries.iter_mut().find(free)?,
            End::Newest => {
                let fresh = |(id, _): &(&BatchId, &mut Entry)| id.created_unix_millis() >= since_unix_millis;
                self.entries.iter_mut().rev().take_while(fresh).find(free)?
            }
        };
        entry.taken = true;
        Some((id.clone(), entry))
    }

    /// A gateway that stumbles on everything is at fault itself; one that takes others meanwhile is not.
    pub fn give_back(&mut self, id: &BatchId, reaction: Reaction) {
        let now = self.taken_by_gateways;
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.taken = false;
        entry.failures = entry.failures.saturating_add(1);
        if reaction == Reaction::Stumbled && entry.stumbled_at.replace(now) != Some(now) {
            entry.stumbles = entry.stumbles.saturating_add(1);
        }
    }
}
