//! All subjects of a lane, in parts.
//!
//! A part is shared with whoever saves it: the first change after a snapshot was taken copies the part, if it is still being
//! saved, so that the evaluation never waits for a snapshot. Parts that did not change are not saved again.

mod firing;
mod restoring;
mod switching;

use std::collections::BTreeSet;
use std::sync::Arc;

use model::HashedMap;
use uuid::Uuid;

use super::capacity::Capacity;
use super::slots::{Binding, Slots};
use super::subject::{Bound, Last, Subject};
use super::tell::Teller;
use super::{Limits, Tally};
use crate::kinds::{Change, Kind, Seen, State};
use crate::naming::Naming;
use crate::rule::Rule;
use crate::saved::SavedSubject;
use crate::transition::Decision;

pub(super) use restoring::Thought;

/// Parts of the state. A part is what one row of a snapshot holds.
pub(crate) const PARTS: usize = 64;

/// What a map adds to an entry, with its places in the queue and among a rule's subjects.
const ENTRY_BYTES: usize = 64;

/// Some of the subjects.
#[derive(Clone, Default)]
pub(crate) struct Part(pub(super) HashedMap<Subject>);

/// Parts that changed, and the rules that their slots mean.
pub(crate) struct Changes {
    pub(crate) parts: Vec<(usize, Arc<Part>)>,
    pub(crate) rules: Vec<Option<Arc<Rule>>>,
}

/// A part as it is saved, in order.
pub(crate) fn part_subjects(part: &Part, rules: &[Option<Arc<Rule>>]) -> Vec<SavedSubject> {
    let mut subjects: Vec<SavedSubject> = part.0.iter().map(|(id, subject)| subject.save(*id, rules)).collect();
    subjects.sort_unstable_by_key(|subject| subject.id);
    subjects
}

pub(super) struct Subjects {
    parts: Vec<Arc<Part>>,
    changed: [bool; PARTS],
    pub(super) slots: Slots,
    capacity: Capacity,
    /// By when they are looked at next.
    due: BTreeSet<(u64, u64)>,
    /// Rules and subjects.
    firing: BTreeSet<(Uuid, u64)>,
    /// Subjects of which rules think what this version does not understand.
    carried: BTreeSet<u64>,
    /// Series whose subject is known, by the hash of all their labels.
    aliases: HashedMap<Alias>,
    now: u64,
    order: u64,
}

/// What a series is a sight of.
#[derive(Clone, Copy)]
pub(super) struct Alias {
    pub(super) subject: u64,
    /// In which generation of rules it was looked up.
    pub(super) checked: u64,
    /// When the rules on its metric were last changed, as it was bound to them.
    pub(super) since: Option<i64>,
}

impl Subjects {
    pub(super) fn new(order: u64) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Arc::default()).collect(),
            changed: [false; PARTS],
            slots: Slots::default(),
            capacity: Capacity::default(),
            due: BTreeSet::new(),
            firing: BTreeSet::new(),
            carried: BTreeSet::new(),
            aliases: HashedMap::default(),
            now: 0,
            order,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn order(&self) -> u64 {
        self.order
    }

    pub(super) fn bytes(&self) -> usize {
        self.capacity.total()
    }

    pub(super) fn bindings(&self) -> Vec<Binding> {
        self.slots.bindings()
    }

    pub(super) fn alias(&mut self, series: u64) -> Option<&mut Alias> {
        self.aliases.get_mut(&series)
    }

    pub(super) fn knows(&self, id: u64) -> bool {
        self.parts[part_of(id)].0.contains_key(&id)
    }

    /// Makes room for a subject, if it is not there.
    pub(super) fn admit(&mut self, tenant: &str, id: u64, naming: &Naming, limits: &Limits) -> bool {
        if self.knows(id) {
            return true;
        }
        let tenant = self.capacity.tenant(tenant);
        let bytes = size_of::<Subject>() + ENTRY_BYTES + naming.bytes();
        if !self.capacity.take(&tenant, bytes, limits) {
            return false;
        }
        let (seen, queued) = (self.now, self.now.saturating_add(nanos(limits.idle)));
        let (bound, carried) = (Vec::new(), Vec::new());
        let subject = Subject { tenant, naming: naming.clone(), seen, queued, bytes, alias: 0, bound, carried };
        self.put(id, subject);
        true
    }

    /// Puts a subject in its place, as new or restored.
    pub(super) fn put(&mut self, id: u64, subject: Subject) {
        self.due.insert((subject.queued, id));
        self.part(id).0.insert(id, subject);
    }

    /// Binds a rule to a subject that is there, if it is not and there is room.
    pub(super) fn bind(&mut self, id: u64, rule: &Arc<Rule>, limits: &Limits) -> bool {
        let slot = self.slots.of(rule);
        let Some(kind) = rule.kind() else { return true };
        if let Some(subject) = self.parts[part_of(id)].0.get(&id)
            && !subject.bound.iter().any(|bound| bound.slot == slot)
        {
            let tenant = Arc::clone(&subject.tenant);
            if !self.capacity.take(&tenant, bound_bytes(), limits) {
                return false;
            }
            self.attach(id, Bound { slot, state: kind.fresh(), last: Last::Unknown });
        }
        true
    }

    /// Adds a bound in its order. Room was taken for it.
    fn attach(&mut self, id: u64, bound: Bound) {
        self.slots.bind(bound.slot, id);
        let slots = &self.slots;
        let key = |slot: u32| slots.rule(slot).map(|rule| rule.id);
        self.changed[part_of(id)] = true;
        if let Some(subject) = Arc::make_mut(&mut self.parts[part_of(id)]).0.get_mut(&id) {
            let place = subject.bound.partition_point(|other| key(other.slot) < key(bound.slot));
            subject.bound.insert(place, bound);
            subject.bytes += bound_bytes();
        }
    }

    /// The subject was seen as this series; another one that it was seen as before is looked up again when it comes.
    pub(super) fn seen_as(&mut self, series: u64, alias: Alias, naming: Naming) {
        if let Some(subject) = self.part(alias.subject).0.get_mut(&alias.subject) {
            let before = std::mem::replace(&mut subject.alias, series);
            subject.naming = naming;
            if before != series {
                self.aliases.remove(&before);
            }
            self.aliases.insert(series, alias);
        }
    }

    /// Shows something to the rules of a subject, or to the one in `slot`.
    pub(super) fn show(
        &mut self,
        id: u64,
        slot: Option<u32>,
        (time, received): (u64, u64),
        (limits, tally, decisions): (&Limits, &mut Tally, &mut Vec<Decision>),
        mut look: impl FnMut(&Kind, &mut State) -> Seen,
    ) {
        let part = part_of(id);
        self.changed[part] = true;
        let Some(subject) = Arc::make_mut(&mut self.parts[part]).0.get_mut(&id) else { return };
        let mut teller = Teller {
            order: &mut self.order,
            firing: &mut self.firing,
            lateness: nanos(limits.lateness),
            reason: "",
            decisions,
        };
        subject.seen = self.now;
        let (naming, mut next) = (&subject.naming, subject.queued);
        for bound in subject.bound.iter_mut().filter(|bound| slot.is_none_or(|slot| slot == bound.slot)) {
            let Some((rule, kind)) = self.slots.rule(bound.slot).and_then(|rule| Some((rule, rule.kind()?))) else {
                continue;
            };
            tally.evaluated += 1;
            let extra = bound.state.extra_bytes();
            match look(kind, &mut bound.state) {
                Seen::NotNewer => tally.not_newer += 1,
                Seen::Unchanged => teller.confirmed(rule, (id, naming), bound, (time, received)),
                Seen::Changed(change) => teller.changed(rule, (id, naming), bound, change, received),
            }
            next = kind.due(&bound.state).map_or(next, |due| due.min(next));
            let grown = bound.state.extra_bytes();
            if grown > extra {
                self.capacity.add(&subject.tenant, grown - extra);
                subject.bytes += grown - extra;
            }
        }
        if next < subject.queued {
            subject.queued = next;
            self.due.insert((next, id));
        }
    }

    /// The lane has come to `received`: what was due by then happens, in order.
    pub(super) fn pass_time(&mut self, received: u64, limits: &Limits, decisions: &mut Vec<Decision>) {
        self.now = self.now.max(received);
        while let Some((time, id)) = self.due.first().copied().filter(|(time, _)| *time <= self.now) {
            self.due.remove(&(time, id));
            if self.parts[part_of(id)].0.get(&id).is_some_and(|subject| subject.queued == time) {
                self.look_at(id, limits, decisions);
            }
        }
    }

    /// A subject is due: rules that wait are told the time, and one that nothing was heard of for long is forgotten.
    fn look_at(&mut self, id: u64, limits: &Limits, decisions: &mut Vec<Decision>) {
        let now = self.now;
        let part = part_of(id);
        self.changed[part] = true;
        let Some(subject) = Arc::make_mut(&mut self.parts[part]).0.get_mut(&id) else { return };
        let mut teller = Teller {
            order: &mut self.order,
            firing: &mut self.firing,
            lateness: nanos(limits.lateness),
            reason: "",
            decisions,
        };
        let mut next = None;
        for bound in &mut subject.bound {
            let Some((rule, kind)) = self.slots.rule(bound.slot).and_then(|rule| Some((rule, rule.kind()?))) else {
                continue;
            };
            if kind.due(&bound.state).is_some_and(|due| due <= now)
                && let Some(change) = kind.on_tick(&mut bound.state, now)
            {
                teller.changed(rule, (id, &subject.naming), bound, change, now);
            }
            next = next.into_iter().chain(kind.due(&bound.state)).min();
        }
        let idle = nanos(limits.idle).max(1);
        let forgotten = subject.seen.saturating_add(idle);
        if forgotten <= now && next.is_none() && subject.carried.is_empty() {
            self.forget(id, limits, decisions);
            return;
        }
        let look_again = if forgotten > now { forgotten } else { now.saturating_add(idle) };
        subject.queued = next.map_or(look_again, |next: u64| next.max(now + 1).min(look_again));
        self.due.insert((subject.queued, id));
    }

    /// Ends what rules think of a subject, and the subject.
    fn forget(&mut self, id: u64, limits: &Limits, decisions: &mut Vec<Decision>) {
        let Some(mut subject) = self.remove(id) else { return };
        for mut bound in std::mem::take(&mut subject.bound) {
            if let Some(rule) = self.slots.rule(bound.slot).map(Arc::clone) {
                self.end((&rule, "silent"), (id, &subject.naming), &mut bound, limits, decisions);
            }
            self.slots.unbind(bound.slot, id);
        }
    }

    fn end(
        &mut self,
        (rule, reason): (&Arc<Rule>, &'static str),
        subject: (u64, &Naming),
        bound: &mut Bound,
        limits: &Limits,
        decisions: &mut Vec<Decision>,
    ) {
        let Some(since) = bound.last.firing().map(|firing| firing.facts.since) else { return };
        let time = bound.state.last_time().unwrap_or(self.now);
        let mut teller = Teller {
            order: &mut self.order,
            firing: &mut self.firing,
            lateness: nanos(limits.lateness),
            reason,
            decisions,
        };
        teller.changed(rule, subject, bound, Change { fires: false, time, since }, self.now);
    }

    fn remove(&mut self, id: u64) -> Option<Subject> {
        let subject = self.part(id).0.remove(&id)?;
        self.aliases.remove(&subject.alias);
        self.carried.remove(&id);
        self.capacity.give_back(&subject.tenant, subject.bytes);
        Some(subject)
    }

    /// What changed since it was last taken.
    pub(super) fn take_changes(&mut self) -> Changes {
        let changed = std::mem::replace(&mut self.changed, [false; PARTS]);
        let parts = self.parts.iter().enumerate().filter(|(part, _)| changed[*part]);
        Changes { parts: parts.map(|(part, content)| (part, Arc::clone(content))).collect(), rules: self.slots.rules() }
    }

    pub(super) fn unsaved(&mut self, parts: &[usize]) {
        parts.iter().filter(|part| **part < PARTS).for_each(|part| self.changed[*part] = true);
    }

    fn part(&mut self, id: u64) -> &mut Part {
        let part = part_of(id);
        self.changed[part] = true;
        Arc::make_mut(&mut self.parts[part])
    }
}

/// Not the bits by which a map finds its entries.
fn part_of(id: u64) -> usize {
    usize::try_from(id >> 40).unwrap_or(0) % PARTS
}

fn bound_bytes() -> usize {
    size_of::<Bound>() + size_of::<super::subject::Firing>() + 32
}

pub(super) fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
