//! An evaluation as it was saved. What this version does not understand is carried, never dropped.

use std::sync::Arc;

use super::subjects::Thought;
use super::{Evaluation, Limits};
use crate::naming::Naming;
use crate::rule_set::RuleSet;
use crate::saved::{Saved, SavedSubject};
use crate::signal::Signal;

/// What came of a snapshot.
pub struct Restored {
    /// Ready to go on.
    pub evaluation: Evaluation,
    /// What rules think of subjects and this version does not understand.
    pub carried: usize,
    /// What belonged to rules that were not in force, and is gone.
    pub dropped: usize,
}

impl Evaluation {
    /// Goes on from a snapshot that was made with `rules`.
    #[must_use]
    pub fn restore(signal: Signal, rules: Arc<RuleSet>, limits: Limits, saved: Saved) -> Restored {
        let mut evaluation = Self::new(signal, Arc::clone(&rules), limits, saved.order);
        evaluation.batches = saved.batches.into_iter().collect();
        evaluation.subjects.restore_time(saved.stream_time);
        let (mut carried, mut dropped) = (0, 0);
        let mut subjects = saved.subjects;
        // In order, so that slots are the same whoever restores.
        subjects.sort_unstable_by_key(|subject| subject.id);
        for subject in subjects {
            let (c, d) = evaluation.restore_subject(&rules, subject);
            carried += c;
            dropped += d;
        }
        // What was just put back is what is kept already.
        drop(evaluation.subjects.take_changes());
        Restored { evaluation, carried, dropped }
    }

    fn restore_subject(&mut self, rules: &RuleSet, saved: SavedSubject) -> (usize, usize) {
        let naming = match saved.labels() {
            None => Naming::Unseen,
            Some(labels) => Naming::Labels(Arc::new(labels)),
        };
        let mut bound = Vec::new();
        let mut carried = Vec::new();
        let mut dropped = 0;
        for one in saved.bound {
            let Some(rule) = one.rule().and_then(|id| rules.in_force(id, one.version())) else {
                dropped += 1;
                continue;
            };
            let state = rule.kind().filter(|_| rule.kind == one.kind).map(|kind| kind.restore(one.form, &one.state));
            match state {
                Some(Ok(state)) => {
                    bound.push(Thought { rule: Arc::clone(rule), state, last: one.last_id(), firing: one.firing });
                }
                _ => carried.push(one),
            }
        }
        let count = carried.len();
        if !bound.is_empty() || count > 0 {
            self.subjects.restore((saved.id, &saved.tenant, naming, (saved.seen, saved.queued)), bound, carried);
        }
        (count, dropped)
    }
}
