//! The rules that subjects are bound to, each in a slot of its own: a new presentation is one change for all of them.

use std::collections::HashMap;
use std::sync::Arc;

use model::HashedMap;
use uuid::Uuid;

use crate::rule::Rule;

#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_rule: HashMap<Uuid, u32>,
}

struct Slot {
    rule: Arc<Rule>,
    subjects: HashedMap<()>,
    over_capacity: u64,
}

/// How many subjects a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Which rule.
    pub rule: Uuid,
    /// Deciding as in this version.
    pub evaluated_version: u64,
    /// Subjects.
    pub subjects: u64,
    /// Times that there was no room for one more.
    pub over_capacity: u64,
}

impl Slots {
    /// The rule in a slot that subjects are bound to.
    pub(super) fn rule(&self, slot: u32) -> Option<&Arc<Rule>> {
        self.get(slot).map(|slot| &slot.rule)
    }

    /// The slot of a rule, made if there is none.
    pub(super) fn of(&mut self, rule: &Arc<Rule>) -> u32 {
        if let Some(slot) = self.by_rule.get(&rule.id) {
            return *slot;
        }
        let new = Some(Slot { rule: Arc::clone(rule), subjects: HashedMap::default(), over_capacity: 0 });
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = self.place(number) {
            *place = new;
        }
        self.by_rule.insert(rule.id, number);
        number
    }

    /// The slot of a rule, where there is one.
    pub(super) fn known(&self, rule: Uuid) -> Option<u32> {
        self.by_rule.get(&rule).copied()
    }

    pub(super) fn bind(&mut self, slot: u32, subject: u64) {
        if let Some(Some(slot)) = self.place(slot) {
            slot.subjects.insert(subject, ());
        }
    }

    pub(super) fn unbind(&mut self, slot: u32, subject: u64) {
        if let Some(Some(slot)) = self.place(slot) {
            slot.subjects.remove(&subject);
        }
    }

    pub(super) fn refused(&mut self, rule: &Arc<Rule>) {
        let slot = self.of(rule);
        if let Some(Some(slot)) = self.place(slot) {
            slot.over_capacity += 1;
        }
    }

    /// Shows the rule as `rule` does from now on.
    pub(super) fn show(&mut self, slot: u32, rule: &Arc<Rule>) {
        if let Some(Some(slot)) = self.place(slot) {
            slot.rule = Arc::clone(rule);
        }
    }

    /// Slots and their rules, in the order of the rules' ids.
    pub(super) fn in_order(&self) -> Vec<(u32, Arc<Rule>)> {
        let mut all: Vec<(u32, Arc<Rule>)> =
            self.by_rule.values().filter_map(|slot| Some((*slot, Arc::clone(self.rule(*slot)?)))).collect();
        all.sort_unstable_by_key(|(_, rule)| rule.id);
        all
    }

    /// Empties a slot and gives the subjects that were bound to it, in order.
    pub(super) fn end(&mut self, number: u32) -> Vec<u64> {
        let Some(slot) = self.place(number).and_then(Option::take) else {
            return Vec::new();
        };
        self.by_rule.remove(&slot.rule.id);
        self.free.push(number);
        let mut subjects: Vec<u64> = slot.subjects.into_keys().collect();
        subjects.sort_unstable();
        subjects
    }

    pub(super) fn bindings(&self) -> Vec<Binding> {
        let used = self.slots.iter().flatten();
        used.map(|slot| Binding {
            rule: slot.rule.id,
            evaluated_version: slot.rule.evaluated_version,
            subjects: slot.subjects.len() as u64,
            over_capacity: slot.over_capacity,
        })
        .collect()
    }

    /// The rules by slot, for whoever saves what is bound to them.
    pub(super) fn rules(&self) -> Vec<Option<Arc<Rule>>> {
        self.slots.iter().map(|slot| slot.as_ref().map(|slot| Arc::clone(&slot.rule))).collect()
    }

    fn get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(usize::try_from(slot).ok()?)?.as_ref()
    }

    fn place(&mut self, slot: u32) -> Option<&mut Option<Slot>> {
        self.slots.get_mut(usize::try_from(slot).ok()?)
    }
}
