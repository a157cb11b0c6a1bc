//! What the replica that judges knows of everybody who is not offline. Pure: times come in, statuses come out.
//!
//! Nobody is looked at while all is well: a sign of life only moves a time, and an entry is looked at again when its own
//! silence could mean something. So a second costs what reports and changes in it, not what there is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::presence::{Interval, Nanos, Status, Thresholds};

/// A resource of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub tenant: Arc<str>,
    pub id: Arc<str>,
}

/// What is known of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub status: Status,
    /// The last sign of life.
    pub heard: Nanos,
    pub interval: Interval,
}

struct Entry {
    known: Known,
    /// Silence before this proves nothing: heartbeats could not be left, or were lost.
    credit: Nanos,
    /// Where it stands in `due`.
    due: Nanos,
    /// As it was written down.
    saved: Interval,
}

/// A status that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub key: Key,
    pub after: Status,
    pub heard: Nanos,
    pub interval: Interval,
}

/// Everybody who is not offline, by when they have to be looked at.
pub struct Roster {
    thresholds: Thresholds,
    entries: HashMap<Key, Entry>,
    due: BTreeSet<(Nanos, Key)>,
    /// Who was idle or offline, and is heard.
    returned: BTreeSet<Key>,
}

impl Roster {
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, entries: HashMap::new(), due: BTreeSet::new(), returned: BTreeSet::new() }
    }

    /// Adds what a store knows, or corrects the status of who is known already; signs of life are never taken back.
    pub fn enter(&mut self, key: Key, known: Known) {
        match self.entries.get_mut(&key) {
            Some(entry) => {
                entry.known.status = known.status;
                entry.known.heard = entry.known.heard.max(known.heard);
                if known.status == Status::Online {
                    self.returned.remove(&key);
                }
                self.place(&key);
            }
            None => {
                let entry = Entry { known, credit: Nanos::MIN, due: 0, saved: known.interval };
                self.entries.insert(key.clone(), entry);
                self.place(&key);
            }
        }
    }

    /// A sign of life at `seen`; false when nobody knows whose it is.
    pub fn hear(&mut self, key: &Key, seen: Nanos) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let pause = seen - entry.known.heard;
        if pause > 0 {
            entry.known.interval = entry.known.interval.after(pause, &self.thresholds);
            entry.known.heard = seen;
            if entry.known.status != Status::Online {
                self.returned.insert(key.clone());
            }
        }
        true
    }

    /// Forgets those of `keys` who are offline and were not heard since.
    pub fn forget_unheard(&mut self, keys: &[Key]) {
        for key in keys {
            let is_offline = self.entries.get(key).is_some_and(|entry| entry.known.status == Status::Offline);
            if is_offline && !self.returned.contains(key) {
                self.forget(key);
            }
        }
    }

    /// Whose silence means something at `now`, as far as is known here. They stay due until they are [settled](Self::settle).
    pub fn overdue(&mut self, now: Nanos) -> Vec<Key> {
        let due: Vec<Key> = self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, key)| key.clone()).collect();
        let mut silent = Vec::new();
        for key in due {
            if self.by_silence(&key, now).is_some() {
                silent.push(key);
            } else {
                self.place(&key);
            }
        }
        silent
    }

    /// What is to be written at `now` about those in `silent`, for whom a last sign of life was looked for, and about who
    /// returned.
    #[must_use]
    pub fn verdicts(&self, silent: &[Key], now: Nanos) -> Vec<Verdict> {
        let worse = silent.iter().filter_map(|key| Some((key, self.by_silence(key, now)?)));
        let better = self.returned.iter().filter(|key| self.by_silence(key, now).is_none());
        let all = worse.chain(better.map(|key| (key, Status::Online)));
        all.filter_map(|(key, after)| {
            let Known { heard, interval, .. } = self.entries.get(key)?.known;
            Some(Verdict { key: key.clone(), after, heard, interval })
        })
        .collect()
    }

    /// A verdict was written.
    pub fn settle(&mut self, verdict: &Verdict) {
        self.returned.remove(&verdict.key);
        if verdict.after == Status::Offline {
            self.forget(&verdict.key);
        } else if let Some(entry) = self.entries.get_mut(&verdict.key) {
            entry.known.status = verdict.after;
            entry.saved = verdict.interval;
            self.place(&verdict.key);
        }
    }

    /// The resource is no more, or its status is none of ours.
    pub fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.due.remove(&(entry.due, key.clone()));
        }
        self.returned.remove(key);
    }

    /// Silence until `now` proves nothing about anybody: each has `length`, or as long as its own silence may be, to be heard.
    pub fn forgive(&mut self, now: Nanos, length: impl Fn(Nanos) -> Nanos) {
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        for key in keys {
            if let Some(entry) = self.entries.get_mut(&key) {
                let own = self.thresholds.idle(entry.known.interval);
                entry.credit = entry.credit.max(now + length(own) - own);
                self.place(&key);
            }
        }
    }

    /// Intervals that were learned and are worth writing down.
    #[must_use]
    pub fn learned(&self) -> Vec<(Key, Interval)> {
        let news = self.entries.iter().filter(|(_, entry)| entry.known.interval.is_news_beside(entry.saved));
        news.map(|(key, entry)| (key.clone(), entry.known.interval)).collect()
    }

    /// They were written down.
    pub fn saved(&mut self, learned: &[(Key, Interval)]) {
        for (key, interval) in learned {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.saved = *interval;
            }
        }
    }

    /// A worse status than the present one, by silence alone.
    fn by_silence(&self, key: &Key, now: Nanos) -> Option<Status> {
        let entry = self.entries.get(key)?;
        let silence = now - entry.known.heard.max(entry.credit);
        let status = self.thresholds.status(silence, entry.known.interval);
        let rank = |status| Status::ALL.into_iter().position(|each| each == status);
        (rank(status) > rank(entry.known.status)).then_some(status)
    }

    /// Puts an entry where its silence will mean something next.
    fn place(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.due.remove(&(entry.due, key.clone()));
        let silence = match entry.known.status {
            Status::Online => self.thresholds.idle(entry.known.interval),
            Status::Idle | Status::Offline => self.thresholds.offline(entry.known.interval),
        };
        entry.due = entry.known.heard.max(entry.credit).saturating_add(silence).saturating_add(1);
        if entry.known.status != Status::Offline {
            self.due.insert((entry.due, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
