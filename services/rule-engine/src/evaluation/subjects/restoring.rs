//! Subjects as they were saved.

use std::sync::Arc;

use super::{ENTRY_BYTES, Subjects, bound_bytes};
use crate::evaluation::subject::{Bound, Last, Subject};
use crate::kinds::State;
use crate::naming::Naming;
use crate::rule::Rule;
use crate::saved::{SavedBound, SavedFiring};
use crate::transition::Id;

/// What a rule thought of a subject, understood.
pub(in crate::evaluation) struct Thought {
    pub(in crate::evaluation) rule: Arc<Rule>,
    pub(in crate::evaluation) state: State,
    pub(in crate::evaluation) last: Option<Id>,
    pub(in crate::evaluation) firing: Option<SavedFiring>,
}

impl Subjects {
    /// Goes on from a snapshot: its time, and subjects one by one.
    pub(in crate::evaluation) fn restore_time(&mut self, now: u64) {
        self.now = now;
    }

    /// Takes back a subject as it was saved. `carried` is what is not understood.
    pub(in crate::evaluation) fn restore(
        &mut self,
        (id, tenant, naming, (seen, queued)): (u64, &str, Naming, (u64, u64)),
        thoughts: Vec<Thought>,
        carried: Vec<SavedBound>,
    ) {
        let tenant = self.capacity.tenant(tenant);
        let mut bytes = size_of::<Subject>() + ENTRY_BYTES + naming.bytes();
        bytes += carried.iter().map(SavedBound::bytes).sum::<usize>();
        self.capacity.add(&tenant, bytes);
        for saved in &carried {
            if let (Some(rule), Some(_)) = (saved.rule(), saved.firing()) {
                self.firing.insert((rule, id));
            }
        }
        if !carried.is_empty() {
            self.carried.insert(id);
        }
        let subject = Subject { tenant, naming, seen, queued, bytes, alias: 0, bound: Vec::new(), carried };
        let tenant = Arc::clone(&subject.tenant);
        self.put(id, subject);
        for Thought { rule, state, last, firing } in thoughts {
            let extra = state.extra_bytes();
            self.capacity.add(&tenant, bound_bytes() + extra);
            let last = match (last, firing) {
                (Some(id_of_last), Some(firing)) => {
                    self.firing.insert((rule.id, id));
                    Last::Firing(Box::new(firing.into_firing(id_of_last)))
                }
                (Some(id_of_last), None) => Last::Ended(Box::new(id_of_last)),
                (None, _) => Last::Unknown,
            };
            let slot = self.slots.of(&rule);
            self.attach(id, Bound { slot, state, last });
            if let Some(subject) = self.part(id).0.get_mut(&id) {
                subject.bytes += extra;
            }
        }
    }
}
