//! What fires, in a set of its own: cheap to say at a million subjects.

use std::sync::Arc;

use uuid::Uuid;

use super::{Subjects, part_of};
use crate::evaluation::Fires;
use crate::evaluation::subject::Subject;
use crate::transition::{Decision, Id, State as Said};

impl Subjects {
    pub(in crate::evaluation) fn firing_count(&self) -> usize {
        self.firing.len()
    }

    pub(in crate::evaluation) fn firing(&self) -> impl Iterator<Item = Fires<'_>> {
        self.firing.iter().filter_map(|(rule, id)| {
            let subject = self.parts[part_of(*id)].0.get(id)?;
            let transition = self.last_of(subject, *rule)?;
            Some(Fires { tenant: &subject.tenant, rule: *rule, subject: *id, transition })
        })
    }

    pub(in crate::evaluation) fn firing_behind(&self, after: Option<(Uuid, u64)>, count: usize) -> Vec<(Uuid, u64)> {
        let after = after.unwrap_or((Uuid::nil(), 0));
        let rest = self.firing.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded));
        rest.chain(self.firing.range(..=after)).take(count).copied().collect()
    }

    fn last_of(&self, subject: &Subject, rule: Uuid) -> Option<Id> {
        let slot = self.slots.known(rule);
        let bound = subject.bound.iter().find(|bound| Some(bound.slot) == slot);
        let carried = || subject.carried.iter().find(|bound| bound.rule() == Some(rule))?.last_id();
        bound.and_then(|bound| bound.last.id()).or_else(carried)
    }

    pub(super) fn fires(&self, rule: Uuid) -> bool {
        self.firing.range((rule, u64::MIN)..=(rule, u64::MAX)).next().is_some()
    }

    pub(in crate::evaluation) fn some_again(
        &self,
        rule: Uuid,
        from: u64,
        count: usize,
    ) -> (Vec<Decision>, Option<u64>) {
        let mut subjects = self.firing.range((rule, from)..=(rule, u64::MAX)).map(|(_, subject)| *subject);
        let some = subjects.by_ref().take(count).filter_map(|subject| self.again(rule, subject)).collect();
        (some, subjects.next())
    }

    pub(in crate::evaluation) fn again(&self, rule: Uuid, id: u64) -> Option<Decision> {
        let subject = self.parts[part_of(id)].0.get(&id)?;
        let slot = self.slots.known(rule)?;
        let bound = subject.bound.iter().find(|bound| bound.slot == slot)?;
        let firing = bound.last.firing()?;
        let (value, line) = bound.state.shows();
        Some(Decision {
            rule: Arc::clone(self.slots.rule(slot)?),
            state: Said::Firing,
            subject: id,
            naming: subject.naming.clone(),
            value,
            line: line.to_owned(),
            facts: firing.facts,
            order: firing.order,
            previous: firing.previous,
            reason: "",
            again: true,
        })
    }
}
