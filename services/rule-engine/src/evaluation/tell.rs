//! Makes a decision of a change: its number, what came before it, and whether it came too late to be told.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::subject::{Bound, Firing, Last};
use crate::kinds::Change;
use crate::naming::Naming;
use crate::rule::Rule;
use crate::transition::{Decision, Facts, State};

/// Who tells, and what it needs of the lane.
pub(super) struct Teller<'a> {
    pub(super) order: &'a mut u64,
    pub(super) firing: &'a mut BTreeSet<(Uuid, u64)>,
    pub(super) lateness: u64,
    /// Why things end, where that is not the condition.
    pub(super) reason: &'static str,
    pub(super) decisions: &'a mut Vec<Decision>,
}

impl Teller<'_> {
    /// A rule changed its mind about a subject.
    pub(super) fn changed(
        &mut self,
        rule: &Arc<Rule>,
        (subject, naming): (u64, &Naming),
        bound: &mut Bound,
        change: Change,
        received: u64,
    ) {
        let late = match bound.last.firing() {
            // The end of what was told is told, however late it comes; of the rest nobody needs to hear.
            Some(before) if !change.fires => before.facts.late,
            _ => self.is_late(rule, change.time, received),
        };
        let facts = Facts { sample: change.time, since: change.since, received, late };
        let previous = bound.last.id();
        *self.order += 1;
        let (value, line) = bound.state.shows();
        let decision = Decision {
            rule: Arc::clone(rule),
            state: if change.fires { State::Firing } else { State::Resolved },
            subject,
            naming: naming.clone(),
            value,
            line: line.to_owned(),
            facts,
            order: *self.order,
            previous,
            reason: if change.fires { "" } else { self.reason },
            again: false,
        };
        let id = decision.id();
        if change.fires {
            self.firing.insert((rule.id, subject));
            bound.last = Last::Firing(Box::new(Firing { id, previous, order: *self.order, facts }));
        } else {
            self.firing.remove(&(rule.id, subject));
            bound.last = Last::Ended(Box::new(id));
        }
        self.decisions.push(decision);
    }

    /// What fires was seen to do so once more: if nobody was told, since it came too late, and this is in time, it is told now.
    pub(super) fn confirmed(
        &mut self,
        rule: &Arc<Rule>,
        subject: (u64, &Naming),
        bound: &mut Bound,
        (time, received): (u64, u64),
    ) {
        if let Some(firing) = bound.last.firing().filter(|firing| firing.facts.late)
            && !self.is_late(rule, time, received)
        {
            let change = Change { fires: true, time, since: firing.facts.since };
            self.changed(rule, subject, bound, change, received);
        }
    }

    fn is_late(&self, rule: &Rule, time: u64, received: u64) -> bool {
        received.saturating_sub(time) > rule.late_after().unwrap_or(self.lateness)
    }
}
